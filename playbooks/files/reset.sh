# Look at what the roles put on the node, or remove what of it is named on standard input. What is not marked as the roles'
# own stays; where a run measures or an environment is in use, everything does.
# Arguments: "look" or "remove", the node's name, benchmark_work_dir, hf_cache_dir, "yes" where what the roles brought into
# that goes too, directories where engines keep what they compiled (with colons between them), the environments' directories.
# Prints lines of fields with tabs between them: "busy" and why, and that is all; "remove", KiB, path and what it is (once it
# is gone: "removed"); "leave", path and why.
set -u
expand() { case $1 in "~") echo "$HOME" ;; "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "${1%/}" ;; esac; }
mode=$1 node=$2 work=$(expand "$3") cache=$(expand "$4") with_cache=$5 compiled=$6
shift 6
confirmed=
[ "$mode" = remove ] && confirmed=$(cat)

busy() {
  printf 'busy\t%s\n' "$1"
  exit 0
}
leave() { if [ -e "$1" ] || [ -L "$1" ]; then printf 'leave\t%s\t%s\n' "$1" "$2"; fi; }
# Argument: the path, and what it is. Fails where it stays.
take() {
  if [ -L "$1" ]; then
    leave "$1" "it is a link: remove what it leads to by hand"
    return 1
  fi
  kib=$(du -sk "$1" 2> /dev/null)
  kib=${kib%%[!0-9]*}
  if [ "$mode" = look ]; then
    printf 'remove\t%s\t%s\t%s\n' "${kib:-0}" "$1" "$2"
  elif printf '%s\n' "$confirmed" | grep -Fxq -e "$1"; then
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
# Whether somebody holds the lock; nobody does where there are no locks.
held() { [ -f "$1" ] && flock -n -s -E 99 "$1" true 2> /dev/null; [ $? = 99 ]; }

# Any node's run: several may share this home.
for order in "$work"/*/*/order.json; do
  run=${order%/order.json}
  [ -f "$order" ] && [ ! -f "$run/exit_code" ] || continue
  { read -r pid < "$run/pid"; } 2> /dev/null || pid=
  if { [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$run" ]; } || held "$run/running.lock"; then
    busy "a run measures in $run"
  fi
done
for given; do
  dir=$(expand "$given")
  held "${dir%/*}/.${dir##*/}.lock" && busy "an installation into $dir is under way"
  pattern=$(printf %s "$dir/bin/" | sed 's/[][\.*^$]/\\&/g')
  for found in $(grep -azl "^$pattern" /proc/[0-9]*/cmdline 2> /dev/null); do
    pid=${found#/proc/}
    busy "process ${pid%/cmdline} is of the environment $dir"
  done
done

# Runs: a directory for each with one of this node's in it, which holds the order that it was given.
for run in "$work"/*/"$node"; do
  [ -d "$run" ] || continue
  if grep -q '"run_id"' "$run/order.json" 2> /dev/null; then
    take "$run" "a run that was not fetched"
  else
    leave "$run" "it holds no order of a run"
  fi
done
for rest in "$work"/[0-9]*T[0-9]*Z-*/"$node".tar.gz "$work"/[0-9]*T[0-9]*Z-*/"$node".removed.*; do
  if [ -e "$rest" ]; then take "$rest" "left of a run"; fi
done
for run in "$work"/*/*; do
  [ "${run##*/}" = "$node" ] || [ ! -f "$run/order.json" ] || leave "$run" "it is the run of another node, ${run##*/}"
done
if [ "$mode" = remove ]; then rmdir "$work"/*/ "$work" 2> /dev/null; fi

# Environments: python_env_install marks one when it is complete.
for given; do
  dir=$(expand "$given")
  beside=${dir%/*}/.${dir##*/}
  case $HOME/ in
    "$dir"/*) leave "$dir" "the home lies in it" ;;
    *)
      if [ -f "$dir/.llm-benchmark" ] && [ -f "$dir/pyvenv.cfg" ]; then
        if take "$dir" "an environment" && [ "$mode" = remove ]; then rm -f "$beside.lock" "$beside.lock.held"; fi
      else
        leave "$dir" "it lacks the mark .llm-benchmark: never completed, or made by somebody else"
      fi
      ;;
  esac
  if [ -d "$beside.wheels" ]; then
    if [ -z "$(find "$beside.wheels" -type f ! -name '*.whl' 2> /dev/null | head -n 1)" ]; then
      take "$beside.wheels" "wheels on their way into an environment"
    else
      leave "$beside.wheels" "it holds more than wheels"
    fi
  fi
  case $dir in */llm-benchmark/*) if [ "$mode" = remove ]; then rmdir "${dir%/*}" 2> /dev/null; fi ;; esac
done

# The cache belongs to whoever uses it. A manifest stands for each snapshot that hf_cache brought or verified.
if [ "$with_cache" = yes ]; then
  for manifests in "$cache"/llm-benchmark/models--* "$cache"/llm-benchmark/datasets--*; do
    repository=$cache/hub/${manifests##*/}
    [ -d "$manifests" ] && [ -d "$repository" ] || continue
    foreign=
    for snapshot in "$repository"/snapshots/*; do
      [ ! -d "$snapshot" ] || [ -f "$manifests/${snapshot##*/}.json" ] || foreign=${snapshot##*/}
    done
    if [ -n "$foreign" ]; then
      leave "$repository" "hf_cache knows nothing of its snapshot $foreign"
    else
      take "$repository" "brought or verified by hf_cache"
    fi
  done
  if [ -d "$cache/llm-benchmark" ]; then take "$cache/llm-benchmark" "manifests and prepared datasets"; fi
  leave "$cache" "all else in it is not the roles'"
else
  leave "$cache" "reset_hf_cache is not true"
fi
IFS=:
for other in $compiled; do leave "$(expand "$other")" "an engine compiled it, perhaps another user's of it too"; done
exit 0
