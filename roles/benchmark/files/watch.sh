# Wait for the run to end, at most so many seconds, and tell how far it is. No Python starts here: the node measures.
# Arguments: the run's directory, the node's name, seconds.
# Prints the exit code (or "running", or "vanished" where its process is gone without one), then progress.json.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2" 2>/dev/null || { echo vanished; exit 0; }
left=$3
while [ ! -f exit_code ] && [ "$left" -gt 0 ]; do
  sleep 1
  left=$((left - 1))
done
if [ -f exit_code ]; then
  cat exit_code
# A pid may have been given to another process since, after a reboot for one: only ours works in this directory.
elif [ -f pid ] && [ "$(readlink "/proc/$(cat pid)/cwd")" != "$(pwd -P)" ] && [ ! -f exit_code ]; then
  echo vanished
else
  echo running
fi
cat progress.json 2>/dev/null
exit 0
