# Remove a run that has ended and lies on the controller.
# Arguments: the run's directory, the node's name.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
run=$(expand "$1")
rm -rf "${run:?}/${2:?}" "${run:?}/${2:?}.tar.gz"
rmdir "$run" 2>/dev/null
exit 0
