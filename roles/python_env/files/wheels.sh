# Tell what decides which wheels have to be sent: what the node's Python is (JSON), which wheels are installed in the first
# environment that a new one can begin from (none where all are of another Python, or changed by hand), and which lie ready from
# an attempt that was cut short. Changes nothing.
# Arguments: the directory that the settings name, the interpreter, the directory where wheels are laid ready.
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
# In python_env_install.py's order, which begins from the same one.
for made in "$dir" "$dir"-????????????; do
  [ -f "$made/.llm-benchmark-wheels" ] || continue
  now=$(for info in "$made"/lib/python3*/site-packages/*.dist-info; do echo "${info##*/}"; done | LC_ALL=C sort | sha256sum | cut -d' ' -f1)
  [ "$("$made/bin/python" -c "import pip; $version" 2>/dev/null)" = "$wanted" ] &&
    [ "$(sed -n 2p "$made/.llm-benchmark" 2>/dev/null)" = "$now" ] && cat "$made/.llm-benchmark-wheels" && break
done
echo "ready"
[ -d "$ready" ] && cd "$ready" && for wheel in *.whl; do [ -f "$wheel" ] && sha256sum "$wheel"; done
exit 0
