# Print, for the environment and for the benchmark's code in it, its fingerprint, a checksum of what was installed at the time, and
# the same checksum now. Needs one connection and no Python, for the usual case that nothing must be done.
# Preceded by find_environment.sh as a function.
# Arguments: the configured directory, the environment's fingerprint, the code's hash (empty: it contains no code).
dir=$(find_environment "$1" "$2") || exit 0
# Sort by bytes.
LC_ALL=C
for made in "$dir" ${3:+"$dir/code/$(printf %.12s "$3")"}; do
  [ -x "$made/bin/python" ] || exit 0
  cat "$made/.llm-benchmark" 2>/dev/null || exit 0
  sum=$(for info in "$made"/lib/python3*/site-packages/*.dist-info; do [ ! -e "$info" ] || echo "${info##*/}"; done | sha256sum)
  echo "${sum%% *}"
  # Marks it as used: the environments that were unused for longest are removed first.
  touch -c "$made/.llm-benchmark" 2>/dev/null
done
exit 0
