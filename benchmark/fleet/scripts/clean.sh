# Remove a run that has ended and lies on the controller.
# Arguments: the run's directory, the node's name, the owner's token.
: "${1:?}" "${2:?}"
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
[ ! -d "$run" ] || owned "$run" "$3" > /dev/null || exit 0
# A session whose connection is lost would wait for its next word until its time is up.
{ read -r session < "$run/session" && [ "/proc/$session/cwd" -ef "$run" ] && kill "$session"; } 2>/dev/null
# Aside first: on NFS a file that is still open keeps its directory, and one of that name would pass for a run.
mv "$run" "$run.removed.$$" 2>/dev/null
rm -rf "$run" "$run.removed".* "$run.tar.gz" 2>/dev/null
rmdir "${run%/*}" 2>/dev/null
exit 0
