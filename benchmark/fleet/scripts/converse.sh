# Answer the controller's requests about one run in one session. It polls nothing, and starts no Python: the node loads, waits or
# measures meanwhile.
# Preceded by the other scripts of this directory, each as a function of its name.
# Arguments: the run's directory, the node's name, this session's mark, the seconds between two progress lines, and the arguments of
# start.sh from the owner's token on.
#
# Every line of an answer begins with the mark, to tell it from anything else that the user's shell prints. Requests, a line each:
#   start BYTES       starts the run with that many following bytes: "started", "running" (it was already), "refused WHY"
#   earlier           what an earlier attempt left: "earlier STATE ATTEMPT"
#   wait FILE LOCK    waits for a file, for which the run releases the lock: "progress JSON" now and then, then "there CONTENT"
#   clock             "clock" and the node's time in nanoseconds since 1970
#   put FILE WORD     writes a word into a file for the run, and rings its bell: "put", "refused WHY"
#   end               waits for the run's end: "progress JSON" now and then, then "ended CODE"
#   pack              what pack.sh prints, then "packed"
#   stop              "stopped", or "nothing" if there is no run
#   clean             removes the run: "cleaned"
# If the run ends before the file comes, the answer is "ended CODE". If there is no run any more, it is "ended" and "vanished" (its
# process is gone without an exit code), "rebooted" (the node was restarted), "removed" (its directory is gone too) or "foreign
# WHOSE" (it belongs to another controller, and is left alone).
case $1 in "~/"*) runs=$HOME/${1#"~/"} ;; /*) runs=$1 ;; *) runs=$PWD/$1 ;; esac
run=$runs/$2
node=$2 mark=$3 seconds=$4 token=$5 entered=
shift 4
say() { printf '%s %s\n' "$mark" "$*"; }

enter() {
  cd "$run" 2>/dev/null || { say ended removed; return 1; }
  whose=$(owned . "$token") || { say ended foreign "$whose"; return 1; }
  [ -z "$entered" ] || return 0
  entered=yes
  # One session at a time: end an earlier one, whose connection is lost even if this side has not noticed. clean.sh does so too.
  { read -r other < session && [ "/proc/$other/cwd" -ef . ] && kill "$other"; } 2>/dev/null
  { echo $$ > session; } 2>/dev/null
  return 0
}

# Opens the bell for reading too, so that it does not block if the run has died.
ring() { if [ -p bell ]; then echo 1<> bell; fi; }

# Returns once the file is there; if the run ends first, prints how it ended and fails.
await() {
  looks=0 line=
  while [ ! -f exit_code ] && [ ! -f "$1" ]; do
    before=$line line=
    { read -r line < progress.json; } 2>/dev/null
    # Without flock this loops five times a second: not every time is worth a line.
    [ "$line" = "$before" ] && [ $((looks % 25)) -gt 0 ] || printf '%s progress %.2000s\n' "$mark" "$line"
    looks=$((looks + 1))
    { flock -s -E 99 -w "$seconds" 9; } 9< "$2"
    [ $? = 99 ] && looks=0 && continue
    [ -f "$1" ] || sleep 0.2
    # The pid may belong to another process by now: only ours works in this directory. If there is no pid after ten seconds
    # without a lock, it could not be written.
    pid=
    if { read -r pid < pid || [ "$looks" -gt 50 ]; } && [ ! "/proc/$pid/cwd" -ef . ] && [ ! -f exit_code ]; then
      [ -d "$run" ] || { say ended removed; return 1; }
      if [ "$(cat boot_id /proc/sys/kernel/random/boot_id | uniq | wc -l)" = 2 ]; then say ended rebooted; else say ended vanished; fi
      return 1
    fi
  done 2>/dev/null
  [ "$1" != exit_code ] && [ ! -f exit_code ] && return 0
  read -r code < exit_code
  say ended "$code"
  return 1
}

while read -r word first second; do
  case $word in
    start)
      order=$(head -c "$first")
      # Not inside the condition: there, a failing command would not end start.sh.
      said=$(printf '%s\n' "$order" | start "$runs" "$node" "$@" 2>&1)
      # shellcheck disable=SC2181
      if [ $? = 0 ]; then
        case $said in *running*) say running ;; *) say started ;; esac
      else
        printf '%s refused %.1000s\n' "$mark" "$(printf %s "$said" | tr '\n' ' ')"
      fi
      order=
      ;;
    earlier) say earlier "$(earlier "$runs" "$node" "$token")" ;;
    wait)
      # Far more than a file ever has, so that a node cannot fill the controller's memory.
      if enter && await "$first" "$second"; then say there "$(head -c 300000 "$first")"; fi
      ;;
    clock) say clock "$(date +%s%N)" ;;
    put)
      enter || continue
      # In a separate program: not every shell reports why it cannot write.
      if why=$( (printf '%s\n' "$second" | cat > "$first.tmp" && mv "$first.tmp" "$first") 2>&1); then
        ring
        say put
      else
        printf '%s refused %.1000s\n' "$mark" "$(printf %s "$why" | tr '\n' ' ')"
      fi
      ;;
    end) if enter; then await exit_code running.lock; fi ;;
    pack) if enter; then pack "$runs" "$node" "$mark" 2>/dev/null; say packed; fi ;;
    stop) say "$(stop "$runs" "$node" "$token")" ;;
    clean)
      cd /
      clean "$runs" "$node" "$token"
      say cleaned
      entered=
      ;;
  esac
done
