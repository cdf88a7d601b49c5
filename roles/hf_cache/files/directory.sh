# Check a model's directory. Argument: the directory. Says on standard error, in one sentence, what it lacks.
case $1 in "~/"*) dir=$HOME/${1#"~/"} ;; *) dir=$1 ;; esac
lacks() {
  echo "The model directory $dir $1: put the model there, or set benchmark_model to a hub id or another directory." >&2
  exit 1
}
unreadable() {
  echo "$1 cannot be read by the user $(id -un): $2 there, or set benchmark_model to another directory." >&2
  exit 1
}
# True where a pattern, expanded by the shell into the arguments, has a match; all that match have to be readable.
any() {
  [ -e "$1" ] || [ -L "$1" ] || { shift; [ $# -gt 0 ] && any "$@"; return; }
  for path in "$@"; do
    [ -e "$path" ] || { [ ! -L "$path" ] || lacks "holds ${path##*/}, a link that leads nowhere"; continue; }
    [ -r "$path" ] || unreadable "$path" "chmod a+r"
  done
}

# A directory in which this user may not look holds nothing that he can see.
parent=$dir
while [ ! -e "$parent" ] && [ "$parent" != / ] && [ "$parent" != . ]; do parent=$(dirname "$parent"); done
[ ! -d "$parent" ] || [ -x "$parent" ] || unreadable "$parent" "chmod a+rx"
[ -d "$dir" ] || lacks "does not exist"
[ -r "$dir" ] || unreadable "$dir" "chmod a+rx"
any "$dir/config.json" || lacks "holds no config.json"
any "$dir"/tokenizer.json "$dir"/tokenizer.model "$dir"/tokenizer_config.json || lacks "holds no tokenizer (tokenizer.json)"
any "$dir"/*.safetensors || lacks "holds no *.safetensors file, and other formats are not loaded"
cd "$dir" && pwd
