# Look at what is left on the node of runs, downloads and installations that have ended, or remove it. What goes on stays, and so
# does what the roles still need.
# Before this stands removal.sh. To look, standard input names the runs whose files of this node lie on the controller.
# Further arguments: the minutes after which what nobody touched is old, the repositories that the settings name (as the cache
# calls them, spaces between), Ansible's temporary directory, and the environments' directories.
minutes=$1 repositories=" $2 " temporary=$(expand "$3")
shift 3
# A run may use an environment for 8 days where no lock tells that it does.
longest_run=11520
# Whether nothing in it was touched for so many minutes (default: the limit).
old() { [ -z "$(find "$1" -mmin "-${2:-$minutes}" 2> /dev/null | head -n 1)" ]; }
# What was confirmed was old when it was shown.
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
    leave "$run" "it holds no order of a run"
  # It was started just now, and its shell has not come to its lock.
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
    leave "$run" "it was not fetched here: -e benchmark_resume=$id fetches it where the run was opened"
  fi
done
# Beside a run that stays an archive may be on its way.
for rest in "$work"/[0-9]*T[0-9]*Z-*/"$node".tar.gz "$work"/[0-9]*T[0-9]*Z-*/"$node".removed.*; do
  if [ -e "$rest" ] && [ ! -d "${rest%/*}/$node" ] && may_go "$rest"; then take "$rest" "left of a run"; fi
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
    take "$wheels" "wheels of an installation that was cut short" && rmdir "$beside.wheels" 2> /dev/null
  fi
  # Beside the one that the settings name: what other checkouts wanted, or this one before.
  for kept in "$dir"-????????????; do
    mark=$kept/.llm-benchmark
    [ -f "$mark" ] && { [ -f "$kept/pyvenv.cfg" ] || [ -d "$kept/code" ]; } && may_go "$mark" && may_go "$mark" "$longest_run" || continue
    if held "$mark" -x || process_of "$kept" > /dev/null; then
      leave "$kept" "it is in use"
    else
      take "$kept" "an environment that was not used for long"
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
    take "$partial" "a download that was cut short"
  fi
done

for wheel in "$temporary"/ansible-tmp-*/llm_datacenter_benchmark-*.whl; do
  if [ -f "$wheel" ] && may_go "${wheel%/*}"; then take "${wheel%/*}" "a wheel that was to be installed"; fi
done
exit 0
