# Speak with the controller, within one SSH session, until the run has been told when to start, or to its end. Nothing
# looks again and again: the node loads, or waits, or measures.
# Arguments: the run's directory, the node's name, the file by which the run says that it is ready, the one that tells
# it when to start, seconds after which is said anew how far it is, what pack.sh and clean.sh hold; and where the run is
# to be started: what start.sh holds, its arguments after these two, and the bytes on standard input that start.sh reads; and where
# the node is to be looked at before that: the command that does.
# Prints lines: what that command prints, then "looked.", and goes on when it reads "start"; "started", or "refused" and
# why, and that is all; "running" and progress.json; then "ready" and what the first file holds. Where the run has ended
# instead, its exit code, or "vanished" where its process is gone without one; and that is all.
# Then reads lines: "clock" (prints "clock" and the node's, in nanoseconds since 1970), "turn" (lets it measure alone, and
# prints "over" once it has), "go" and the time (prints "told"), "end" (prints "ended", the exit code and the KiB of what the
# run left), "pack" (prints what pack.sh prints, and "packed."), "clean" (removes the run, prints "cleaned").
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
if [ $# -gt 7 ]; then
  order=$(head -c "${11}")
  if [ $# -gt 11 ]; then
    eval "${12}" 2>/dev/null
    echo looked.
    read -r word && [ "$word" = start ] || exit 0
  fi
  told=$(printf '%s\n' "$order" | sh -c "$8" start.sh "$1" "$2" "$9" "${10}" 2>&1) || {
    printf 'refused %.1000s\n' "$(printf %s "$told" | tr '\n' ' ')"
    exit 0
  }
  echo started
fi
cd "$run" 2>/dev/null || { echo vanished; exit 0; }
seconds=$5
# One session at a time: of an earlier one the connection is lost, which this end may not have noticed. clean.sh ends it too.
{ read -r other < speaker && [ "/proc/$other/cwd" -ef . ] && kill "$other"; } 2>/dev/null
echo $$ > speaker

# Until a file is there, for which the run lets go of a lock; see watch.sh.
await() {
  looks=0
  while [ ! -f exit_code ] && [ ! -f "$1" ]; do
    before=$told told=
    { read -r told < progress.json; } 2>/dev/null
    # Without flock there are five looks a second: not each has something to say.
    [ "$told" = "$before" ] && [ $((looks % 25)) -gt 0 ] || printf 'running %.2000s\n' "$told"
    looks=$((looks + 1))
    { flock -s -E 99 -w "$seconds" 9; } 9< "$2"
    [ $? = 99 ] && looks=0 && continue
    [ -f "$1" ] || sleep 0.2
    # A pid may have been given to another process since: only ours works in this directory.
    if read -r pid < pid && [ ! "/proc/$pid/cwd" -ef . ] && [ ! -f exit_code ]; then
      echo vanished
      exit 0
    fi
  done 2>/dev/null
}
# Opened for reading too, so that it does not wait for a run that has died.
ring() { if [ -p bell ]; then echo 1<> bell; fi; }
# That it has ended is not what is waited for: whoever asks looks at it in another way.
or_leave() {
  if [ -f exit_code ]; then
    cat exit_code
    exit 0
  fi
}

case $3 in repeat*) await "$3" "$3.lock" ;; *) await "$3" starting.lock ;; esac
or_leave
# Far more than it ever is; what a node tells is not to fill the controller.
echo "ready $(head -c 300000 "$3")"
while read -r word time; do
  case $word in
    clock) echo "clock $(date +%s%N)" ;;
    turn)
      : > turn
      ring
      await turn_over alone.lock
      or_leave
      echo over
      ;;
    go) echo "$time" > "$4.tmp" && mv "$4.tmp" "$4" && ring && echo told ;;
    end)
      await exit_code running.lock
      read -r code < exit_code
      kib=$(du -sk .)
      echo "ended $code ${kib%%[!0-9]*}"
      ;;
    pack)
      sh -c "$6" pack "$1" "$2"
      echo packed.
      ;;
    clean)
      : > speaker
      cd / && sh -c "$7" clean "$1" "$2"
      echo cleaned
      exit 0
      ;;
  esac
done
