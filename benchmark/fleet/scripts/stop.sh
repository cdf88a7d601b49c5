# Stop the run: ask it to end, and kill it ten seconds later. Returns once it has ended.
# Arguments: the run's directory, the node's name, the owner's token. Prints "stopped", or "nothing" if it was never started.
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run" 2>/dev/null || { echo nothing; exit 0; }
owned . "$3" > /dev/null || { echo nothing; exit 0; }
# It may have just been started.
left=20
while [ ! -s pid ] && [ "$left" -gt 0 ]; do
  sleep 0.1
  left=$((left - 1))
done
echo stopped
read -r shell 2>/dev/null < pid || exit 0
# As in converse.sh: only ours works in this directory.
[ "/proc/$shell/cwd" -ef . ] || exit 0
# `timeout` leads the process group of all that the run started, and passes SIGTERM on to it.
read -r limit < limit
kill -TERM "$limit" 2>/dev/null
left=50
while [ ! -f exit_code ] && [ "$left" -gt 0 ]; do
  sleep 0.2
  left=$((left - 1))
  [ "$left" -eq 0 ] && kill -KILL -- "-$limit" 2>/dev/null && sleep 0.5
done
exit 0
