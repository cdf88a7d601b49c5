# Remove a run that has ended and was fetched.
# Arguments: the run's directory, the node's name, the owner's token.
: "${1:?}" "${2:?}"
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
[ ! -d "$run" ] || owned "$run" "$3" > /dev/null || exit 0
# A session with a lost connection would wait for its next request until its time limit.
{ read -r session < "$run/session" && [ "/proc/$session/cwd" -ef "$run" ] && kill "$session"; } 2>/dev/null
# Rename it first: on NFS an open file keeps its directory, which would still look like a run under its old name.
mv "$run" "$run.removed.$$" 2>/dev/null
rm -rf "$run" "$run.removed".* "$run.tar.gz" 2>/dev/null
rmdir "${run%/*}" 2>/dev/null
exit 0
