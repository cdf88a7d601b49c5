# Stop the run: it is asked to end, and ended ten seconds later. Returns once it has ended.
# Arguments: the run's directory, the node's name.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2" 2>/dev/null || exit 0
shell=$(cat pid 2>/dev/null) || exit 0
# As in watch.sh: only ours works in this directory.
[ "$(readlink "/proc/$shell/cwd")" = "$(pwd -P)" ] || exit 0
# `timeout`, the shell's child, leads the process group of all that the run started, and hands SIGTERM on to it.
limit=
for stat in /proc/[0-9]*/stat; do
  { read -r line < "$stat"; } 2>/dev/null || continue
  # After the program's name, which is in parentheses: state, parent.
  # shellcheck disable=SC2086 # words
  set -- ${line##*) }
  [ "$2" = "$shell" ] && limit=${stat#/proc/} && limit=${limit%/stat}
done
[ -n "$limit" ] || exit 0
kill -TERM "$limit" 2>/dev/null
left=50
while [ ! -f exit_code ] && [ "$left" -gt 0 ]; do
  sleep 0.2
  left=$((left - 1))
  [ "$left" -eq 0 ] && kill -KILL -- "-$limit" 2>/dev/null && sleep 0.5
done
exit 0
