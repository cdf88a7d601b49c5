# Pack the run's files and send them. Prints lines that begin with the mark: "lies" and the name of each file that is here; "said" and
# the end of tar's messages; then "archive" and its size in bytes (0: none), and right after that line the archive.
# The controller judges the archive by its content. Exit codes are ignored: tar's is 1 if a log grew while it was read, and 2 if gzip
# only warned.
# Arguments: the run's directory, the node's name, the mark.
set -eu
umask go-w
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run"
for file in *; do
  if [ -f "$file" ]; then echo "$3 lies $file"; fi
done
# The run has ended: the space that it reserved for its last files is free for the archive.
rm -f room.tmp "../$2.tar.gz"
exec 3>&1
said=$(tar -czf "../$2.tar.gz" --exclude=order.json --exclude='*.tmp' --exclude='*.part' --exclude='*.lock' --exclude=bell . \
  2>&1 >&3 3>&- | tail -c 500 | tr '\n' ' ') || :
echo "$3 said $said"
size=$(wc -c < "../$2.tar.gz") 2>/dev/null || size=0
echo "$3 archive $size"
[ "$size" -eq 0 ] || head -c "$size" "../$2.tar.gz"
# The next output begins a new line, even if the archive was shorter than its size.
echo
