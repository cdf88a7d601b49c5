# List or remove the node's leftovers of runs, downloads and installations that have ended. What is in use stays, and so does what
# the roles still need.
# Preceded by removal.sh. To look, standard input names the runs whose files from this node are on the controller.
# Further arguments: the age in minutes at which untouched files count as old, the configured repositories (as the cache names them,
# separated by spaces), Ansible's temporary directory, and the environments' directories.
minutes=$1 repositories=" $2 " temporary=$(expand "$3")
shift 3
# Without locks, a run may be using an environment for up to 8 days.
longest_run=11520
# Whether nothing in it was touched for that many minutes (default: the limit).
old() { [ -z "$(find "$1" -mmin "-${2:-$minutes}" 2> /dev/null | head -n 1)" ]; }
# What the user confirmed was already old when it was shown.
may_go() { [ "$mode" = remove ] || old "$@"; }
# A session with the controller works in the run's directory: it may be fetching.
spoken_with() { { read -r session < "$1/session" && [ "/proc/$session/cwd" -ef "$1" ]; } 2> /dev/null; }
take_run() {
  take "$run" "$1"
  if [ -e "$run.tar.gz" ]; then take "$run.tar.gz" "its archive"; fi
}

for run in "$work"/*/"$node"; do
  [ -d "$run" ] || continue
  id=${run%/*}
  id=${id##*/}
  if ! grep -q '"run_id"' "$run/order.json" 2> /dev/null; then
    leave "$run" "it has no order of a run"
  # A run that was just started may not hold its lock yet.
  elif measures "$run" || { [ ! -f "$run/exit_code" ] && ! old "$run" 2; }; then
    leave "$run" "a run is measuring there"
  elif spoken_with "$run"; then
    leave "$run" "it is being fetched"
  elif [ "$mode" = remove ]; then
    take_run "a run"
  elif named "$id"; then
    take_run "a run that was fetched"
  elif old "$run"; then
    take_run "a run that was not fetched here"
  else
    leave "$run" "it was not fetched here: -e benchmark_resume=$id fetches it on the controller that opened it"
  fi
done
# The archive of a run that stays may be being fetched.
for rest in "$work"/[0-9]*T[0-9]*Z-*/"$node".tar.gz "$work"/[0-9]*T[0-9]*Z-*/"$node".removed.*; do
  if [ -e "$rest" ] && [ ! -d "${rest%/*}/$node" ] && may_go "$rest"; then take "$rest" "leftovers of a run"; fi
done
if [ "$mode" = remove ]; then rmdir "$work"/*/ "$work" 2> /dev/null; fi

for directory; do
  dir=$(expand "$directory")
  beside=${dir%/*}/.${dir##*/}
  if held "$beside.lock" || { [ -f "$beside.lock.held" ] && ! old "$beside.lock.held" 2; }; then
    leave "$dir" "an installation is under way"
    continue
  fi
  wheels=$beside.wheels/$node
  if [ -d "$wheels" ] && only_wheels "$wheels" && may_go "$wheels"; then
    take "$wheels" "wheels of an interrupted installation" && rmdir "$beside.wheels" 2> /dev/null
  fi
  # Beside the configured one: environments for other checkouts, or for an earlier state of this one.
  for kept in "$dir"-????????????; do
    mark=$kept/.llm-benchmark
    [ -f "$mark" ] && { [ -f "$kept/pyvenv.cfg" ] || [ -d "$kept/code" ]; } && may_go "$mark" && may_go "$mark" "$longest_run" || continue
    if held "$mark" -x || process_of "$kept" > /dev/null; then
      leave "$kept" "it is in use"
    else
      take "$kept" "an environment that was unused for long"
    fi
  done
done

for partial in "$cache"/hub/*/blobs/*.incomplete; do
  repository=${partial%/blobs/*}
  name=${repository##*/}
  [ -f "$partial" ] && may_go "$partial" || continue
  case $repositories in *" $name "*) ;; *) [ -d "$cache/llm-benchmark/$name" ] || continue ;; esac
  etag=${partial##*/}
  if held "$cache/hub/.locks/$name/${etag%%.*}.lock"; then
    leave "$partial" "it is being downloaded"
  else
    take "$partial" "an interrupted download"
  fi
done

for wheel in "$temporary"/ansible-tmp-*/llm_datacenter_benchmark-*.whl; do
  if [ -f "$wheel" ] && may_go "${wheel%/*}"; then take "${wheel%/*}" "a wheel of an interrupted installation"; fi
done
exit 0
