# Wait for the run to end, for one file of it or for its next stage, at most so many seconds, and tell how far it is. No
# Python starts here: the node measures.
# Arguments: the run's directory, the node's name, seconds, the file ("exit_code": for the end alone), the stage that is
# known already.
# Prints the exit code (or the file's name, or "running", or "vanished" where its process is gone without an exit code),
# then progress.json, of which no more than is read there; or with the file's name what it holds.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2" 2>/dev/null || { echo vanished; exit 0; }
known_stage() {
  { read -r told < progress.json; } 2>/dev/null
  case $told in "" | *"\"state\": \"$1\""*) ;; *) return 1 ;; esac
}
# Nothing is measured before the node is ready, so that looking often costs nothing; then a look costs a millisecond.
if [ "$4" = exit_code ]; then step=0.5 looks=$((2 * $3)); else step=0.2 looks=$((5 * $3)); fi
while [ ! -f exit_code ] && [ ! -f "$4" ] && [ "$looks" -gt 0 ] && known_stage "$5"; do
  sleep "$step"
  looks=$((looks - 1))
done
if [ -f exit_code ]; then
  cat exit_code
# A pid may have been given to another process since, after a reboot for one: only ours works in this directory.
elif [ -f pid ] && [ "$(readlink "/proc/$(cat pid)/cwd")" != "$(pwd -P)" ] && [ ! -f exit_code ]; then
  echo vanished
# Not the end: should it have come since the first look, the next one finds it with its exit code.
elif [ "$4" != exit_code ] && [ -f "$4" ]; then
  echo "$4"
  # Far more than it ever is; what a node tells is not to fill the controller.
  head -c 300000 "$4"
  exit 0
else
  echo running
fi
head -c 2000 progress.json 2>/dev/null
exit 0
