# Tell the run when to start.
# Arguments: the run's directory, the node's name, the time by the node's clock in nanoseconds since 1970, the file that
# the run waits for.
set -eu
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
cd "$(expand "$1")/$2"
echo "$3" > "$4.tmp"
mv "$4.tmp" "$4"
