# Pack what the run left for the controller, and print the archive's path and size in bytes.
# Arguments: the run's directory, the node's name.
set -eu
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
run=$(expand "$1")
cd "$run/$2"
tar -czf "../$2.tar.gz" --exclude=order.json --exclude='*.tmp' --exclude='*.part' .
echo "$PWD/../$2.tar.gz $(wc -c < "../$2.tar.gz")"
