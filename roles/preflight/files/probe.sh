# Tell what the node is, as "key<TAB>value" lines: one connection, and no Python needed to say that Python is missing.
# Arguments: python interpreter, environment directory, cache directory, directory of the wanted snapshot, cuda or cpu;
# where vLLM is wanted, its interpreter and its environment's directory.
expand() { case $1 in "~") echo "$HOME" ;; "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac; }
say() { printf '%s\t%s\n' "$1" "$2"; }

# The file system that a directory is on, or will be on: asked of its nearest parent that is there.
disk() {
  where=$(expand "$2")
  while [ ! -d "$where" ] && [ "$where" != / ] && [ "$where" != . ]; do where=$(dirname "$where"); done
  say "$1_disk" "$(df -Pk "$where" 2>/dev/null | awk 'NR == 2 { print $1, $4 }')"
  [ -w "$where" ] || say "$1_unwritable" "$where"
}

# The interpreter that an environment is made from, and the environment: what is said begins with $1.
environment() {
  interpreter=$(expand "$2")
  say "$1python" "$("$interpreter" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
  # What one is made with is of no interest where one is: asking takes as long as all the rest.
  if [ -x "$(expand "$3")/bin/python" ]; then
    say "$1env_present" yes
  else
    "$interpreter" -c 'import venv, ensurepip' 2>/dev/null && say "$1venv" yes
  fi
  disk "$1env" "$3"
}

environment "" "$1" "$2"
if [ $# -gt 5 ]; then
  say machine "$(uname -m)"
  say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
  environment vllm_ "$6" "$7"
fi
[ -n "$4" ] && [ -d "$(expand "$4")" ] && say model_present yes
disk cache "$3"
for program in timeout setsid tar; do command -v "$program" >/dev/null || say missing_program "$program"; done
if [ "$5" = cuda ]; then
  gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits 2>&1)
  say gpu_status $?
  printf '%s\n' "$gpus" | while IFS= read -r line; do say gpu "$line"; done
fi
exit 0
