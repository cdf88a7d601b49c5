# Pack what the run left for the controller. Prints "lies " and the name of each file that is here; "said " and the end of what
# tar complained of; then "packed ", the archive's path and its size in bytes (0: there is none); and the archive itself where it
# is small, for a transfer of its own costs more than these.
# The controller judges the archive by what is in it. Exit codes tell nothing: tar's is 1 where a log grew while it was read,
# and 2 where gzip only warned.
# Arguments: the run's directory, the node's name.
set -eu
umask go-w
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run"
for file in *; do
  if [ -f "$file" ]; then echo "lies $file"; fi
done
rm -f "../$2.tar.gz"
exec 3>&1
said=$(tar -czf "../$2.tar.gz" --exclude=order.json --exclude='*.tmp' --exclude='*.part' --exclude='*.lock' --exclude=bell . \
  2>&1 >&3 3>&- | tail -c 500 | tr '\n' ' ') || :
echo "said $said"
size=$(wc -c < "../$2.tar.gz") 2>/dev/null || size=0
echo "packed $PWD/../$2.tar.gz $size"
[ "$size" -gt 500000 ] || base64 "../$2.tar.gz" 2>/dev/null || :
