# Tell what the node is, as "key<TAB>value" lines: one connection, and no Python needed to say that Python is missing.
# Arguments: python interpreter, environment directory, cache directory, directory of the wanted snapshot, cuda or cpu;
# where vLLM is wanted, its interpreter and its environment's directory.
expand() { case $1 in "~") path=$HOME ;; "~/"*) path=$HOME/${1#"~/"} ;; *) path=$1 ;; esac; }
say() { printf '%s\t%s\n' "$1" "$2"; }

# The file system that a directory is on, or will be on: asked of its nearest parent that is there.
disk() {
  expand "$2"
  where=$path
  while [ ! -d "$where" ] && [ "$where" != / ] && [ "$where" != . ]; do where=$(dirname "$where"); done
  df -Pk "$where" 2>/dev/null | {
    read -r _
    read -r source _ _ free _
    say "$1_disk" "${source:+$source $free}"
  }
  [ -w "$where" ] || say "$1_unwritable" "$where"
}

# The interpreter that an environment is made from, and the environment: what is said begins with $1.
environment() {
  expand "$2"
  interpreter=$path version=
  expand "$3"
  # Python starts only where an environment is to be made: that takes as long as all the rest.
  if [ -x "$path/bin/python" ]; then
    say "$1env_present" yes
    if [ "$path/bin/python" -ef "$(command -v "$interpreter")" ]; then
      { while read -r name _ value && [ -z "$version" ]; do [ "$name" = version ] && version=$value; done < "$path/pyvenv.cfg"; } 2>/dev/null
    fi
  else
    "$interpreter" -c 'import venv, ensurepip' 2>/dev/null && say "$1venv" yes
  fi
  [ -n "$version" ] || version=$("$interpreter" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
  say "$1python" "$version"
  disk "$1env" "$3"
}

environment "" "$1" "$2"
if [ $# -gt 5 ]; then
  say machine "$(uname -m)"
  say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
  environment vllm_ "$6" "$7"
fi
expand "$4"
[ -n "$path" ] && [ -d "$path" ] && say model_present yes
disk cache "$3"
for program in timeout setsid tar; do command -v "$program" >/dev/null || say missing_program "$program"; done
if [ "$5" = cuda ]; then
  gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits 2>&1)
  say gpu_status $?
  printf '%s\n' "$gpus" | while IFS= read -r line; do say gpu "$line"; done
fi
exit 0
