# Run fetch-model or fetch-dataset (`python -m benchmark ...`) in the node's environment, with a time limit.
# Preceded by find_environment.sh as a function.
# Arguments: the environment's directory, its fingerprint, the hash of the benchmark's code in it, the time limit in seconds, the
# command, its options.
# Standard input: a line with the token (may be empty), then the input of --listing. Exit code 100: no environment.
env=$(find_environment "$1" "$2") || exit 100
[ ! -f "$env/.llm-benchmark" ] || env=$env/code/$(printf %.12s "$3")
python=$env/bin/python limit=$4
shift 4
[ -x "$python" ] || exit 100
# The token comes only through standard input.
unset HF_TOKEN HUGGING_FACE_HUB_TOKEN
# Python imports from its working directory: a directory "benchmark" in the home directory must not be found.
cd /
timeout -k 10 "$limit" "$python" -m benchmark "$@"
exit $? # an exit code even after a signal, which SSH would report as a lost connection
