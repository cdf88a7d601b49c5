# Run fetch-model or fetch-dataset (`python -m benchmark ...`) of the node's environment, with a time limit.
# Arguments: the environment's directory, the time limit in seconds, the command, its options.
# Standard input: the token's line (it may be empty), then what --listing reads. Exit code 100: no environment.
case $1 in "~/"*) python=$HOME/${1#"~/"}/bin/python ;; *) python=$1/bin/python ;; esac
limit=$2
shift 2
[ -x "$python" ] || exit 100
# The token comes through standard input alone.
unset HF_TOKEN HUGGING_FACE_HUB_TOKEN
# Python imports from where it is started: a directory "benchmark" in the home directory is not meant.
cd /
timeout -k 10 "$limit" "$python" -m benchmark "$@"
exit $? # this shell's, also where a signal ended it: SSH would tell that as a lost connection
