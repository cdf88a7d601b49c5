# What reset.sh and clean.sh share; it stands before each. Look at what may go from the node, or remove what of it is named on
# standard input, a path a line.
# Arguments: "look" or "remove", the node's name, benchmark_work_dir, hf_cache_dir, "yes" where what another user owns may go too;
# then those of the script.
# Prints lines of fields with tabs between them: "busy" and why, and that is all; "remove", KiB, path and what it is (once it
# is gone: "removed"); "leave", path and why.
set -u
expand() { case $1 in "~") echo "$HOME" ;; "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "${1%/}" ;; esac; }
mode=$1 node=$2 work=$(expand "$3") cache=$(expand "$4") of_others=$5
shift 5
listed=$(cat)
named() { printf '%s\n' "$listed" | grep -Fxq -e "$1"; }

busy() {
  printf 'busy\t%s\n' "$1"
  exit 0
}
leave() { if [ -e "$1" ] || [ -L "$1" ]; then printf 'leave\t%s\t%s\n' "$1" "$2"; fi; }
# Arguments: the path, and what it is. Fails where it stays.
take() {
  if [ -L "$1" ]; then
    leave "$1" "it is a link: remove what it leads to by hand"
    return 1
  fi
  if [ ! -O "$1" ] && [ "$of_others" != yes ]; then
    leave "$1" "it is another user's"
    return 1
  fi
  kib=$(du -sk "$1" 2> /dev/null)
  kib=${kib%%[!0-9]*}
  if [ "$mode" = look ]; then
    printf 'remove\t%s\t%s\t%s\n' "${kib:-0}" "$1" "$2"
  elif named "$1"; then
    said=$(rm -rf -- "$1" 2>&1)
    if [ -e "$1" ]; then
      leave "$1" "it cannot be removed: $(printf %.300s "$said" | tr '\n\t' '  ')"
      return 1
    fi
    printf 'removed\t%s\t%s\t%s\n' "${kib:-0}" "$1" "$2"
  else
    leave "$1" "it came after you were asked"
    return 1
  fi
}
# Whether somebody holds the lock (of a kind: -s, alone; -x, alone or with others); nobody does where there are no locks.
held() { [ -f "$1" ] && flock -n "${2:--s}" -E 99 "$1" true 2> /dev/null; [ $? = 99 ]; }
# Whether the run in this directory goes on.
measures() {
  [ -f "$1/order.json" ] && [ ! -f "$1/exit_code" ] || return 1
  { read -r pid < "$1/pid"; } 2> /dev/null || pid=
  { [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$1" ]; } || held "$1/running.lock"
}
# Prints a process that is of this environment, or of one for our own code in it; fails where there is none.
process_of() {
  pattern=$(printf %s "$1/" | sed 's/[][\.*^$]/\\&/g')'\(code/[^/]*/\)*bin/'
  for found in $(grep -azl "^$pattern" /proc/[0-9]*/cmdline 2> /dev/null); do
    found=${found#/proc/}
    echo "${found%/cmdline}"
    return 0
  done
  return 1
}
# Wheels on their way into an environment: nothing else may lie there.
only_wheels() { [ -z "$(find "$1" -type f ! -name '*.whl' 2> /dev/null | head -n 1)" ]; }
