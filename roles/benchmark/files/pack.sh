# Pack what the run left for the controller, and print "packed ", the archive's path and its size in bytes; and the archive
# itself where it is small, for a transfer of its own costs more than these.
# Arguments: the run's directory, the node's name.
set -eu
umask go-w
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run"
tar -czf "../$2.tar.gz" --exclude=order.json --exclude='*.tmp' --exclude='*.part' --exclude='*.lock' --exclude=bell . || {
  # It fails as well where a file only changed while it was read, as one on a network disk seems to: what it made decides.
  packed=$(tar -tzf "../$2.tar.gz") || exit 1
  for file in mlperf_datacenter_*.json *samples.jsonl; do
    [ ! -f "$file" ] || printf '%s\n' "$packed" | grep -qxF "./$file" || { echo "$file cannot be packed" >&2; exit 1; }
  done
}
size=$(wc -c < "../$2.tar.gz")
echo "packed $PWD/../$2.tar.gz $size"
[ "$size" -gt 500000 ] || base64 "../$2.tar.gz"
