# Wait for the run to end, for one file of it or for its next stage, at most so many seconds, and tell how far it is. No
# Python starts here, and nothing looks again and again: the node measures.
# Arguments: the run's directory, the node's name, seconds, the file ("exit_code": for the end alone), the stage that is
# known already (empty: the first that is seen), seconds before a next stage is told.
# Prints the exit code (or the file's name, or "running"; or where its process is gone without an exit code "vanished",
# "rebooted" where the node was started anew since, "removed" where the directory is gone too), then progress.json, of
# which no more than is read there; or with the file's name what it holds.
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run" 2>/dev/null || { echo removed; exit 0; }
known=$5
next_stage() {
  told=
  { read -r told < progress.json; } 2>/dev/null
  told=${told#*'"state": "'}
  told=${told%%'"'*}
  [ -n "$known" ] || known=$told
  [ "$told" != "$known" ]
}
# The run holds a lock until it is ready (one more for each later repeat), one until it has measured alone, and one until
# it ends. Without flock a look costs some milliseconds.
case $4 in exit_code) lock=running.lock ;; turn_over) lock=alone.lock ;; repeat*) lock=$4.lock ;; *) lock=starting.lock ;; esac
tenths=$((10 * $3))
held=
next_stage
while [ ! -f exit_code ] && [ ! -f "$4" ] && [ "$tenths" -gt 0 ]; do
  { flock -s -E 99 -w "$6" 9; } 9< "$lock"
  if [ $? = 99 ]; then
    held=yes
    tenths=$((tenths - 10 * $6))
    next_stage && break
  else
    held=
    sleep 0.2
    tenths=$((tenths - 2))
  fi
done 2>/dev/null
if [ -f exit_code ]; then
  cat exit_code
# Whoever holds the lock is there. A pid may have been given to another process since, after a reboot for one: only ours works
# in this directory.
elif [ -z "$held" ] && read -r pid 2>/dev/null < pid && [ ! "/proc/$pid/cwd" -ef . ] && [ ! -f exit_code ]; then
  [ "$(cat boot_id /proc/sys/kernel/random/boot_id 2>/dev/null | uniq | wc -l)" = 2 ] && echo rebooted || echo vanished
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
