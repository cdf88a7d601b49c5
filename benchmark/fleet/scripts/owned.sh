# Check the owner of a run's directory: its maker writes the controller's token there at once.
# Arguments: the directory, the token. If it has another owner, prints that and fails.
looks=20
while [ -n "$2" ] && [ -d "$1" ] && [ ! -s "$1/owner" ] && [ "$looks" -gt 0 ]; do
  sleep 0.1
  looks=$((looks - 1))
done
theirs='' who=''
{ read -r theirs && read -r who; } 2> /dev/null < "$1/owner"
[ "$theirs" = "$2" ] || { printf '%.300s\n' "${who:-an unknown owner}"; exit 1; }
exit 0
