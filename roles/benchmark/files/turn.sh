# Tell the run that it is its turn to measure alone.
# Arguments: the run's directory, the node's name.
set -eu
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2"
: > turn
