# Describe the node as "key<TAB>value" lines, over one connection; needs no Python, so that it can report a missing Python.
# Preceded by find_environment.sh and the role hf_cache's directory.sh as functions.
# Arguments: Python interpreter, environment directory and its fingerprint, cache directory, the path of the model's snapshot (or
# "directory:" and the user's own directory), cuda or cpu; if an engine is provisioned, its interpreter, environment directory and
# fingerprint.
#
# A hanging driver or disk must not hide the other findings. So each part runs in its own process, all at the same time, and writes
# into a file: an unkillable process would keep a pipe to the controller open forever.
# A part prints "at" before each command; if the part does not end, its last command has hung ("hung", the part, the command).
LIMIT_S=${PREFLIGHT_LIMIT_S:-25}
limit=
timeout -k 1 9 true 2>/dev/null && limit="timeout -k 2 $LIMIT_S"
expand() { case $1 in "~") path=$HOME ;; "~/"*) path=$HOME/${1#"~/"} ;; *) path=$1 ;; esac; }
say() { printf '%s\t%s\n' "$1" "$2"; }

# Reports a command that ran into its time limit. Arguments: its exit code, its words.
ended() {
  case $1 in 124 | 137) [ -z "$limit" ] || { say hung "$part $2"; exit 0; } ;; esac
}

# The file system of a directory that may not exist yet: that of its nearest existing parent.
disk() {
  expand "$2"
  where=$path
  say at "a look at $where"
  while [ ! -d "$where" ] && [ "$where" != / ] && [ "$where" != . ]; do where=$(dirname "$where"); done
  [ -w "$where" ] || say "$1_unwritable" "$where"
  say at "df -Pk $where"
  said=$($limit df -Pk "$where" 2>/dev/null)
  ended $? "df -Pk $where"
  printf '%s\n' "$said" | {
    read -r _
    read -r source _ _ free _
    say "$1_disk" "${source:+$source $free}"
  }
}

# An environment and the interpreter that it is made from. Keys begin with $1.
environment() {
  expand "$2"
  interpreter=$path version=
  expand "$3"
  say at "a look at $path"
  path=$(find_environment "$3" "$4")
  # Start Python only if an environment must be made: that takes as long as all the rest.
  if [ -n "$path" ] && [ -x "$path/bin/python" ]; then
    say "$1env_present" yes
    if [ "$path/bin/python" -ef "$(command -v "$interpreter")" ]; then
      { while read -r name _ value && [ -z "$version" ]; do [ "$name" = version ] && version=$value; done < "$path/pyvenv.cfg"; } 2>/dev/null
    fi
  else
    say at "$interpreter"
    $limit "$interpreter" -B -c 'import venv, ensurepip' >/dev/null 2>&1
    code=$?
    ended $code "$interpreter"
    [ $code != 0 ] || say "$1venv" yes
  fi
  if [ -z "$version" ]; then
    say at "$interpreter"
    version=$($limit "$interpreter" -B -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
    ended $? "$interpreter"
    # A wrapper script may print something first. Output that does not end in a version is not Python's.
    version=${version##*"
"}
    case $version in *[!0-9.]*) version= ;; esac
  fi
  say "$1python" "$version"
  disk "$1env" "$3"
}

model() {
  expand "${1#directory:}"
  say at "a look at $path"
  case $1 in directory:*) model_directory "$path"; return ;; esac
  [ -z "$path" ] || [ ! -e "$path" ] || say model_present yes
}

# nvidia-smi's answer, and its exit code.
smi() {
  say at nvidia-smi
  listed=$($limit nvidia-smi --format=csv,noheader,nounits "$1" 2>&1)
  code=$?
  ended $code nvidia-smi
}

# The user's own files that the run will read. PREFLIGHT_FILES has a line for each: its setting and its path.
files() {
  printf '%s\n' "$PREFLIGHT_FILES" | while IFS='	' read -r setting file; do
    [ -n "$file" ] || continue
    expand "$file"
    say at "a look at $path"
    if [ ! -f "$path" ]; then
      say file_lacks "$setting is $file, and there is no such file on the node: put it there, or set another path."
    elif [ ! -r "$path" ]; then
      say file_lacks "$setting is $file, which cannot be read by the user $(id -un): chmod a+r there."
    elif [ ! -s "$path" ]; then
      say file_lacks "$setting is $file, which is empty on the node."
    elif [ "$setting" = benchmark_dataset_path ]; then
      # The controller recognises the kind of file by its first line.
      say dataset_begins "$(head -c 4096 "$path" | tr -d '\000' | grep -a -m 1 '[^[:space:]]')"
    fi
  done
}

# The GPUs that the driver lists, and NVIDIA GPUs on the PCI bus that are not bound to vfio.
gpu() {
  # In the order in which drivers introduced them: a driver that does not know a field reports only that error. The field is then
  # dropped; after a second error all later ones too, since each query takes seconds if the driver is loaded anew for it.
  fields=index,pci.bus_id,name,memory.total,driver_version,uuid,pstate,persistence_mode,compute_mode
  fields=$fields,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max
  fields=$fields,retired_pages.pending,ecc.errors.uncorrected.volatile.total,mig.mode.current
  fields=$fields,remapped_rows.pending,remapped_rows.failure,fabric.state
  fields=$fields,ecc.errors.uncorrected.aggregate.sram.thresholdExceeded,gpu_recovery_action
  refused=
  while :; do
    smi "--query-gpu=$fields"
    case $listed in *'Field "'*'" is not a valid field'*) ;; *) break ;; esac
    unknown=${listed#*'Field "'}
    unknown=${unknown%%\"*}
    case $fields, in *",$unknown,"*) ;; *) break ;; esac
    after=${fields#*",$unknown"}
    fields=${fields%%",$unknown"*}
    [ -n "$refused" ] || fields=$fields$after
    refused=yes
  done
  say gpu_fields "$fields"
  say gpu_status $code
  printf '%s\n' "$listed" | while IFS= read -r line; do say gpu "$line"; done
  case $fields in
    *,remapped_rows.failure*) ;;
    *)
      # Older drivers have a separate query for it.
      smi --query-remapped-rows=gpu_uuid,remapped_rows.pending,remapped_rows.failure
      [ $code != 0 ] || printf '%s\n' "$listed" | while IFS= read -r line; do say gpu_rows "$line"; done
      ;;
  esac
  say at "a look at ${PREFLIGHT_PCI:-/sys/bus/pci/devices}"
  for device in "${PREFLIGHT_PCI:-/sys/bus/pci/devices}"/*; do
    { read -r vendor < "$device/vendor" && read -r class < "$device/class"; } 2>/dev/null || continue
    case $vendor,$class,$(readlink "$device/driver") in
      *vfio*) ;;
      0x10de,0x03*) say pci_gpu "${device##*/}" ;;
    esac
  done
}

# Starts a part. Arguments: its name, its command.
part() {
  part=$1
  shift
  if [ -z "$scratch" ]; then
    "$@"
    return
  fi
  "$@" > "$scratch/$part" 2>/dev/null < /dev/null &
  parts="$parts $part:$!"
}

scratch=$(mktemp -d 2>/dev/null || mktemp -d /dev/shm/probe.XXXXXX 2>/dev/null)
parts= late=
part env environment "" "$1" "$2" "$3"
part cache disk cache "$4"
part model model "$5"
part files files
[ $# -lt 7 ] || part engine_env environment engine_ "$7" "$8" "$9"
[ "$6" != cuda ] || part gpu gpu
# The run would inherit it.
[ -z "${CUDA_VISIBLE_DEVICES+set}" ] || say visible_devices "$CUDA_VISIBLE_DEVICES"
# To recognise a machine that is listed twice.
say host "$(uname -n)"
{ read -r boot < /proc/sys/kernel/random/boot_id && say boot_id "$boot"; } 2>/dev/null
while read -r name value; do
  case $name in Cpus_allowed_list:) say cpus "$value" ;; esac
done < /proc/self/status 2>/dev/null
if [ $# -gt 6 ]; then
  say machine "$(uname -m)"
  say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
fi
for program in timeout setsid tar gzip; do command -v "$program" >/dev/null || say missing_program "$program"; done

# A part that even SIGKILL does not end is abandoned shortly after a command's time limit.
trap 'late=yes' USR1
{ sleep $((LIMIT_S + 5)) & trap 'kill $!; exit' TERM; wait $!; kill -USR1 $$; } > /dev/null 2>&1 < /dev/null &
watch=$!
for one in $parts; do
  part=${one%%:*} pid=${one#*:}
  [ -n "$late" ] || wait "$pid"
  while IFS= read -r line; do
    case $line in "at	"*) last=${line#at?} ;; *) printf '%s\n' "$line" ;; esac
  done < "$scratch/$part"
  if [ -n "$late" ] && kill -KILL "$pid" 2>/dev/null; then say hung "$part $last"; fi
done
kill "$watch" 2>/dev/null
rm -rf "$scratch"
say clock_ns "$(date +%s%N)"
exit 0
