# Print, for the environment and for the benchmark's code in it, what it was made of (a fingerprint), a sum of what was installed
# then, and the same sum now: one connection and no Python, for the usual case that nothing has to be done.
# Before this stands find_environment.sh as a function.
# Arguments: the directory that the settings name, the environment's fingerprint, the code's hash (empty: there is none in it).
dir=$(find_environment "$1" "$2") || exit 0
# In the order of their bytes.
LC_ALL=C
for made in "$dir" ${3:+"$dir/code/$(printf %.12s "$3")"}; do
  [ -x "$made/bin/python" ] || exit 0
  cat "$made/.llm-benchmark" 2>/dev/null || exit 0
  sum=$(for info in "$made"/lib/python3*/site-packages/*.dist-info; do [ ! -e "$info" ] || echo "${info##*/}"; done | sha256sum)
  echo "${sum%% *}"
  # It is wanted: those that were not for the longest go first.
  touch -c "$made/.llm-benchmark" 2>/dev/null
done
exit 0
