# Shared by reset.sh and clean.sh, and placed before each. List what can be removed from the node, or remove the listed paths that
# standard input names, one per line.
# Arguments: "look" or "remove", the node's name, benchmark_work_dir, hf_cache_dir, "yes" if files of other users may be removed
# too; then those of the script.
# Prints tab-separated lines: "busy" and why, and nothing more; "remove" (after removal: "removed"), KiB, path and what it is;
# "leave", path and why.
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
# Arguments: the path, and what it is. Fails if it stays.
take() {
  if [ -L "$1" ]; then
    leave "$1" "it is a link: remove its target by hand"
    return 1
  fi
  if [ ! -O "$1" ] && [ "$of_others" != yes ]; then
    leave "$1" "it belongs to another user"
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
    leave "$1" "it appeared after you were asked"
    return 1
  fi
}
# Whether a process holds the lock (-s: exclusively; -x: exclusively or shared); no process does on a file system without locks.
held() { [ -f "$1" ] && flock -n "${2:--s}" -E 99 "$1" true 2> /dev/null; [ $? = 99 ]; }
# Whether the run in this directory goes on.
measures() {
  [ -f "$1/order.json" ] && [ ! -f "$1/exit_code" ] || return 1
  { read -r pid < "$1/pid"; } 2> /dev/null || pid=
  { [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$1" ]; } || held "$1/running.lock"
}
# Prints a process that runs from this environment, or from the one for our own code in it; fails if there is none.
process_of() {
  pattern=$(printf %s "$1/" | sed 's/[][\.*^$]/\\&/g')'\(code/[^/]*/\)*bin/'
  for found in $(grep -azl "^$pattern" /proc/[0-9]*/cmdline 2> /dev/null); do
    found=${found#/proc/}
    echo "${found%/cmdline}"
    return 0
  done
  return 1
}
# Whether a directory of wheels for an environment contains nothing else.
only_wheels() { [ -z "$(find "$1" -type f ! -name '*.whl' 2> /dev/null | head -n 1)" ]; }
