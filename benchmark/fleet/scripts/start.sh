# Start the run detached: without terminal, session or open files of the SSH connection, and with its own time limit.
# Arguments: the run's directory, the node's name, the token of the run's owner and who that is, the environment's directory, the time
# limit in seconds, the environment's fingerprint and the hash of the benchmark's code in it (empty: whatever is there), and the first
# two arguments of await_machine.sh: how the machine is claimed, and the seconds to wait for it.
# Standard input: one line with values that may be secret (may be empty), and the order (JSON).
# Prints "started", or "running" if it was started before.
set -eu
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
env=$(find_environment "$5" "$7") || {
  case $5 in "~/"*) env=$HOME/${5#"~/"} ;; *) env=$5 ;; esac
  [ ! -x "$env/bin/python" ] || { echo "$5 is another checkout's environment: run playbooks/provision.yml" >&2; exit 1; }
}
# Without a mark, the environment and the code in it are the user's own; the run itself checks which code that is.
if [ -n "$8" ] && [ -f "$env/.llm-benchmark" ]; then env=$env/code/$(printf %.12s "$8"); fi
python=$env/bin/python
[ -x "$python" ] || { echo "there is no $python: run playbooks/provision.yml" >&2; exit 1; }

umask go-w
mkdir -p "${run%/*}"
# The directory is the lock: mkdir succeeds once.
if ! mkdir "$run" 2>/dev/null; then
  [ -d "$run" ] || mkdir "$run"
  whose=$(owned "$run" "$3") || { echo "$run is a run of $whose: it was left alone" >&2; exit 1; }
  echo running
  exit 0
fi
cd "$run"
# A failed start leaves nothing.
trap 'cd / && rm -rf "$run"' EXIT
# In a separate program: not every shell reports why it cannot write.
printf '%s\n%s\n' "$3" "$4" | cat > owner.part
mv owner.part owner
# The secrets stay in this shell's memory and go through a pipe: into no file, no argument and no shell's environment.
IFS= read -r secrets
cat > order.json
# Files for the state, the end and the log of the run get their disk space now and are written in place, so that they can be written
# even if the run fills the disk. Python reserves space for its own result.
for file in limit.part pid.part exit_code.part benchmark.log; do echo "               " | cat > "$file"; done
# Shows later whether the node was restarted.
{ read -r boot < /proc/sys/kernel/random/boot_id && echo "$boot" > boot_id; } 2> /dev/null || :
# Others wait for these locks instead of polling: the run releases the first when it is ready to measure, the shell below the second
# when the run has ended. Locked here, since Python takes a second to start, or many on a busy node.
exec 8> starting.lock 9> running.lock
{ flock -n 8 && flock -n 9; } 2> /dev/null || :
# shellcheck disable=SC2016 # the inner shell expands
printf '%s\n' "$secrets" | setsid sh -c '
  trap "" HUP
  # Keep standard input for the run: a background process gets none unless it is given one.
  exec 7<&0 < /dev/null
  up() { read -r seconds _ < /proc/uptime; seconds=${seconds%.*}; }
  keep() { echo "$2" 1<> "$1.part" && mv "$1.part" "$1"; }
  code=0 limit=
  # No Python starts while another run measures here.
  for claim in /tmp/llm-benchmark-*.claim; do [ ! -e "$claim" ] || break; done
  if [ -e "$claim" ]; then
    timeout -k 5 $(($5 + 60)) sh -c "$3" await "$4" "$5" progress.json &
    limit=$!
    keep limit $limit
    keep pid $$
    wait $limit
    code=$?
  fi
  [ "$code" = 0 ] || { keep exit_code "$code"; exit; }
  up
  began=$seconds
  # Where the kernel counts OOM kills in this cgroup: cgroup v1, v2, and in a container that does not see its own cgroup path.
  v1= v2=
  while IFS=: read -r _ controllers path; do
    case $controllers in memory) v1=$path ;; "") v2=$path ;; esac
  done < /proc/self/cgroup
  for counter in "/sys/fs/cgroup/memory$v1/memory.oom_control" "/sys/fs/cgroup$v2/memory.events" \
    /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events /dev/null; do
    [ -r "$counter" ] && break
  done
  kills() { while read -r name kills; do [ "$name" = oom_kill ] && return; done < "$1"; kills=; }
  kills "$counter"
  own=$kills
  kills /proc/vmstat
  all=$kills
  PYTHONUNBUFFERED=1 timeout -k 30 "$1" "$2" -m benchmark run --order order.json --starting-lock 8 --secrets - <&7 7<&- 9>&- &
  limit=$!
  keep limit $limit
  keep pid $$
  exec 7<&- 8>&-
  wait $limit
  code=$?
  up
  # A run that was killed at its time limit did not run out of memory.
  [ "$code" = 137 ] && [ $((seconds - began)) -ge "$1" ] && code=124
  # To tell who killed it: the counts before and after, and the memory limit of the cgroup.
  [ "$code" = 137 ] && {
    kills "$counter"
    echo "cgroup $own $kills"
    kills /proc/vmstat
    echo "node $all $kills"
    echo "limit" $(cat "${counter%/*}/memory.limit_in_bytes" "${counter%/*}/memory.max" 2> /dev/null)
  } > oom_kills
  # Kill what outlived it: `timeout` leads the process group of all that was started.
  kill -KILL -- "-$limit" 2>/dev/null
  keep exit_code $code
' benchmark "$6" "$python" "$AWAIT_MACHINE" "$9" "${10}" 1<> benchmark.log 2>&1 &
trap - EXIT
echo started
