# List or remove what the roles put on the node. What is not marked as the roles' own stays; if a run measures or an environment is
# in use, everything stays.
# Preceded by removal.sh. Further arguments: "yes" to remove what the roles fetched into the cache too, directories of the engines'
# compiled files (separated by colons), and the environments' directories.
with_cache=$1 compiled=$2
shift 2

# Runs of any node: several nodes may share this home directory.
for run in "$work"/*/*; do
  measures "$run" && busy "a run measures in $run"
done
for given; do
  dir=$(expand "$given")
  held "${dir%/*}/.${dir##*/}.lock" && busy "an installation into $dir is under way"
  for made in "$dir" "$dir"-????????????; do
    for mark in "$made/.llm-benchmark" "$made"/code/*/.llm-benchmark; do
      held "$mark" -x && busy "a run uses the environment $made"
    done
    pid=$(process_of "$made") && busy "process $pid runs from the environment $made"
  done
done

# Runs: each directory has one for this node, with the order for its run.
for run in "$work"/*/"$node"; do
  [ -d "$run" ] || continue
  if grep -q '"run_id"' "$run/order.json" 2> /dev/null; then
    take "$run" "a run that was not fetched"
  else
    leave "$run" "it has no order of a run"
  fi
done
for rest in "$work"/[0-9]*T[0-9]*Z-*/"$node".tar.gz "$work"/[0-9]*T[0-9]*Z-*/"$node".removed.*; do
  if [ -e "$rest" ]; then take "$rest" "leftovers of a run"; fi
done
for run in "$work"/*/*; do
  [ "${run##*/}" = "$node" ] || [ ! -f "$run/order.json" ] || leave "$run" "it is the run of another node, ${run##*/}"
done
if [ "$mode" = remove ]; then rmdir "$work"/*/ "$work" 2> /dev/null; fi

# Environments: python_env_install marks one when it begins, and when it is complete. Others may be kept beside the configured one.
for given; do
  dir=$(expand "$given")
  beside=${dir%/*}/.${dir##*/}
  for made in "$dir" "$dir"-????????????; do
    case $HOME/ in
      "$made"/*) leave "$made" "it contains the home directory" ;;
      *)
        what=
        if [ -f "$made/.llm-benchmark" ] && { [ -f "$made/pyvenv.cfg" ] || [ -d "$made/code" ]; }; then
          what="an environment"
        elif [ -f "$made/.llm-benchmark.part" ]; then
          what="an incomplete environment"
        fi
        if [ -z "$what" ]; then
          leave "$made" "it lacks the mark .llm-benchmark: the roles did not make it"
        elif take "$made" "$what" && [ "$mode" = remove ]; then
          rm -f "$beside.lock" "$beside.lock.held"
        fi
        ;;
    esac
  done
  if [ -d "$beside.wheels" ]; then
    if only_wheels "$beside.wheels"; then
      take "$beside.wheels" "wheels for an environment"
    else
      leave "$beside.wheels" "it contains more than wheels"
    fi
  fi
  case $dir in */llm-benchmark/*) if [ "$mode" = remove ]; then rmdir "${dir%/*}" 2> /dev/null; fi ;; esac
done

# The cache may have other users. Each snapshot that hf_cache fetched or verified has a manifest.
if [ "$with_cache" = yes ]; then
  for manifests in "$cache"/llm-benchmark/models--* "$cache"/llm-benchmark/datasets--*; do
    repository=$cache/hub/${manifests##*/}
    [ -d "$manifests" ] && [ -d "$repository" ] || continue
    foreign=
    for snapshot in "$repository"/snapshots/*; do
      [ ! -d "$snapshot" ] || [ -f "$manifests/${snapshot##*/}.json" ] || foreign=${snapshot##*/}
    done
    if [ -n "$foreign" ]; then
      leave "$repository" "hf_cache did not fetch its snapshot $foreign"
    else
      take "$repository" "fetched or verified by hf_cache"
    fi
  done
  if [ -d "$cache/llm-benchmark" ]; then take "$cache/llm-benchmark" "manifests and prepared datasets"; fi
  leave "$cache" "the rest of it is not the roles'"
else
  leave "$cache" "reset_hf_cache is not true"
fi
IFS=:
for other in $compiled; do leave "$(expand "$other")" "files that an engine compiled, which others may use too"; done
exit 0
