# Remove a run that has ended and lies on the controller.
# Arguments: the run's directory, the node's name.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
run=$(expand "$1")
# A session whose connection is lost would wait for its next word until its time is up.
{ [ "$(readlink "/proc/$(cat "$run/$2/speaker")/cwd")" = "$(cd "$run/$2" && pwd -P)" ] && kill "$(cat "$run/$2/speaker")"; } 2>/dev/null
rm -rf "${run:?}/${2:?}" "${run:?}/${2:?}.tar.gz"
rmdir "$run" 2>/dev/null
exit 0
