# Find an environment by its fingerprint, among those beside each other.
# Arguments: the configured directory, the fingerprint. Prints the environment's directory; fails if there is none.
case $1 in "~/"*) dir=$HOME/${1#"~/"} ;; *) dir=$1 ;; esac
for found in "$dir" "$dir"-????????????; do
  { read -r holds < "$found/.llm-benchmark"; } 2> /dev/null || continue
  [ "$holds" != "$2" ] || { printf '%s\n' "$found"; exit 0; }
done
# An environment without a mark is the user's own, or was never completed.
[ -x "$dir/bin/python" ] && [ ! -f "$dir/.llm-benchmark" ] && printf '%s\n' "$dir"
