# Print what an earlier attempt at the run left here.
# Arguments: the run's directory, the node's name, the owner's token.
# Prints "nothing"; or its state (its exit code, "running", "waits" for a start that will not come, or "vanished" if its process is
# gone without an exit code) and the attempt's number; or "foreign" and its owner.
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run" 2>/dev/null || { echo nothing; exit 0; }
whose=$(owned . "$3") || { echo "foreign $whose"; exit 0; }
number=$(sed -n 's/^ *"attempt": \([0-9]*\).*/\1/p' order.json 2>/dev/null)
# The last start that it waits for, unless it has reported that it takes part in no more.
measurements=$(sed -n 's/^ *"measurements": \([0-9]*\).*/\1/p' order.json 2>/dev/null)
[ "${measurements:-1}" -gt 1 ] && last=repeat${measurements}_go || last=go
# A run that was just started has no pid yet.
looks=20
while [ ! -s pid ] && [ "$looks" -gt 0 ]; do
  sleep 0.1
  looks=$((looks - 1))
done
if [ -f exit_code ]; then
  read -r state < exit_code
# As in converse.sh: only ours works in this directory.
elif ! read -r pid 2>/dev/null < pid || [ ! "/proc/$pid/cwd" -ef . ]; then
  state=vanished
  if [ -f exit_code ]; then read -r state < exit_code; fi
elif [ ! -f "$last" ] && ! cat ./*ready 2>/dev/null | grep -qx over && grep -q '"wait_s": [0-9]' order.json; then
  state=waits
else
  state=running
fi
echo "$state $number"
