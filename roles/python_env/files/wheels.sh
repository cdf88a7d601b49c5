# Print what determines which wheels must be sent: facts about the node's Python (JSON), the wheels installed in the first
# environment that a new one can start from (none if all have another Python or were changed by hand), and the wheels that an
# interrupted attempt left. Changes nothing.
# Arguments: the configured directory, the interpreter, the directory for wheels.
expand() { case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
dir=$(expand "$1") python=$(expand "$2") ready=$(expand "$3")
"$python" -c '
import json, os, platform, sys
print(json.dumps({
    "implementation": sys.implementation.name, "python": "%d.%d" % sys.version_info[:2], "machine": platform.machine(),
    "libc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None,
    "threads": "t" in getattr(sys, "abiflags", ""), "system": sys.platform, "ready": sys.argv[1]}))
' "$ready" || exit 1
echo "installed"
version='import sys; print(sys.version)'
wanted=$("$python" -c "$version" 2>/dev/null)
# In the order of python_env_install.py, so that both start from the same environment.
for made in "$dir" "$dir"-????????????; do
  [ -f "$made/.llm-benchmark-wheels" ] || continue
  now=$(for info in "$made"/lib/python3*/site-packages/*.dist-info; do echo "${info##*/}"; done | LC_ALL=C sort | sha256sum | cut -d' ' -f1)
  [ "$("$made/bin/python" -c "import pip; $version" 2>/dev/null)" = "$wanted" ] &&
    [ "$(sed -n 2p "$made/.llm-benchmark" 2>/dev/null)" = "$now" ] && cat "$made/.llm-benchmark-wheels" && break
done
echo "ready"
[ -d "$ready" ] && cd "$ready" && for wheel in *.whl; do [ -f "$wheel" ] && sha256sum "$wheel"; done
exit 0
