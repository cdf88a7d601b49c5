# Check a model's directory. Argument: the directory. Says on standard error, in one sentence, what it lacks.
case $1 in "~/"*) dir=$HOME/${1#"~/"} ;; *) dir=$1 ;; esac
lacks() {
  echo "The model directory $dir $1: put the model there, or set benchmark_model to a hub id or another directory." >&2
  exit 1
}
# True where a pattern, expanded by the shell into the arguments, has a readable match.
any() { for path in "$@"; do [ -r "$path" ] && return 0; done; return 1; }

[ -d "$dir" ] || lacks "does not exist"
[ -r "$dir/config.json" ] || lacks "holds no readable config.json"
any "$dir"/tokenizer.json "$dir"/tokenizer.model "$dir"/tokenizer_config.json || lacks "holds no tokenizer (tokenizer.json)"
any "$dir"/*.safetensors || lacks "holds no *.safetensors file, and other formats are not loaded"
cd "$dir" && pwd
