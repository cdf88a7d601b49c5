# Run fetch-model or fetch-dataset (`python -m benchmark ...`) of the node's environment, with a time limit.
# Before this stands find_environment.sh as a function.
# Arguments: the environment's directory, the fingerprint of what it holds, the hash of the benchmark's code in it, the time limit in
# seconds, the command, its options.
# Standard input: the token's line (it may be empty), then what --listing reads. Exit code 100: no environment.
env=$(find_environment "$1" "$2") || exit 100
[ ! -f "$env/.llm-benchmark" ] || env=$env/code/$(printf %.12s "$3")
python=$env/bin/python limit=$4
shift 4
[ -x "$python" ] || exit 100
# The token comes through standard input alone.
unset HF_TOKEN HUGGING_FACE_HUB_TOKEN
# Python imports from where it is started: a directory "benchmark" in the home directory is not meant.
cd /
timeout -k 10 "$limit" "$python" -m benchmark "$@"
exit $? # this shell's, also where a signal ended it: SSH would tell that as a lost connection
