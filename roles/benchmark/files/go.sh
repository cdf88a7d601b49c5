# Tell the run when to start.
# Arguments: the run's directory, the node's name, the time by the node's clock in nanoseconds since 1970.
set -eu
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2"
echo "$3" > go.tmp
mv go.tmp go
