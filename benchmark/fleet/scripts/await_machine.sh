# Wait until no run of this project, of any user, measures on this machine; no Python is started meanwhile. Runs claim a machine as
# described in benchmark/node/machine.py, which makes the final decision: it knows the GPUs.
# Arguments: "alone", "gpus" (some of the GPUs; the run itself knows which), "shared", or "none" (no claim); seconds to wait; the
# progress file to write (empty: none). If a run still measures, prints a sentence about it and fails.
left=$2
command -v flock > /dev/null || exit 0
while :; do
  busy=
  for claim in /tmp/llm-benchmark-*.claim; do
    if [ -L "$claim" ] || [ ! -f "$claim" ]; then continue; fi
    { flock -n -s -E 99 9; } 9< "$claim" 2> /dev/null
    [ $? = 99 ] || continue
    words='' uses='' shared=''
    { read -r words && read -r uses && read -r shared; } 2> /dev/null < "$claim"
    case $1,$uses,$shared in none,* | shared,*,shared | gpus,gpus*) continue ;; esac
    busy=$claim
    break
  done
  if [ -z "$busy" ]; then
    if [ "$left" != "$2" ] && [ -n "$3" ]; then echo '{"state": "starting"}' > "$3.part" && mv "$3.part" "$3"; fi
    exit 0
  fi
  words=$(printf '%.300s' "${words:-another run is measuring here}" | tr -cd '[:alnum:] .:,@_/+-')
  if [ "$left" -le 0 ]; then
    limit="benchmark_busy is fail"
    [ "$2" -le 0 ] || limit="after waiting $2 s, benchmark_sync_timeout_s"
    echo "Not alone: $words ($limit)."
    exit 3
  fi
  if [ -n "$3" ]; then
    printf '{"state": "waiting: %s"}\n' "$words" > "$3.part" && mv "$3.part" "$3"
  fi
  read -r began _ < /proc/uptime
  { flock -s -w "$left" 9; } 9< "$busy" 2> /dev/null
  read -r now _ < /proc/uptime
  left=$((left - ${now%.*} + ${began%.*}))
done
