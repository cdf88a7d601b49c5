# Check a model directory. Argument: the directory. Prints "model_lacks<TAB>sentence" for each problem, or "model_dir<TAB>path" if
# there is none. Preflight's probe includes it as a function.
case $1 in "~/"*) dir=$HOME/${1#"~/"} ;; *) dir=$1 ;; esac
whole=yes no= dead= closed=
lacks() {
  whole=
  printf 'model_lacks\tThe model directory %s %s: put the model there, or set benchmark_model to a hub id or another directory.\n' \
    "$dir" "$1"
}
unreadable() {
  whole=
  printf 'model_lacks\t%s cannot be read by the user %s: %s there, or set benchmark_model to another directory.\n' \
    "$1" "$(id -un)" "$2"
}
# Looks for a file with one of these names. The shell has expanded patterns; every match must be readable.
any() {
  wanted=$1 found=
  shift
  for path in "$@"; do
    if [ -e "$path" ]; then
      found=yes
      [ -r "$path" ] || closed="$closed${closed:+, }$path"
    elif [ -L "$path" ]; then
      found=yes dead="$dead${dead:+, }${path##*/}"
    fi
  done
  [ -n "$found" ] || no="$no${no:+, }no $wanted"
}

# In a directory that this user may not enter, every file would seem to be missing.
parent=$dir
while [ ! -e "$parent" ] && [ "$parent" != / ] && [ "$parent" != . ]; do parent=$(dirname "$parent"); done
if [ -d "$parent" ] && [ ! -x "$parent" ]; then
  unreadable "$parent" "chmod a+rx"
elif [ ! -d "$dir" ]; then
  lacks "does not exist"
elif [ ! -r "$dir" ]; then
  unreadable "$dir" "chmod a+rx"
else
  any config.json "$dir/config.json"
  any "tokenizer (tokenizer.json)" "$dir"/tokenizer.json "$dir"/tokenizer.model "$dir"/tokenizer_config.json
  any "*.safetensors file (other formats are not loaded)" "$dir"/*.safetensors
  # An index lists weights that are in several files.
  index=$dir/model.safetensors.index.json
  if [ -r "$index" ]; then
    listed=$(tr ',' '\n' < "$index" | sed -n 's|.*"\([A-Za-z0-9._-]*\.safetensors\)".*|\1|p' | sort -u)
    for name in $listed; do [ -e "$dir/$name" ] || [ -L "$dir/$name" ] || no="$no${no:+, }no $name"; done
  fi
  [ -z "$no" ] || lacks "holds $no"
  [ -z "$dead" ] || lacks "holds broken links ($dead)"
  [ -z "$closed" ] || unreadable "$closed" "chmod a+r"
fi
[ -z "$whole" ] || printf 'model_dir\t%s\n' "$(cd "$dir" && pwd)"
