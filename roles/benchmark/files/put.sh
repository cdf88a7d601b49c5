# Put a word where the run looks for it, and ring for it.
# Arguments: the run's directory, the node's name, the file, the word.
set -eu
case $1 in "~/"*) run=$HOME/${1#"~/"}/$2 ;; *) run=$1/$2 ;; esac
cd "$run"
echo "$4" > "$3.tmp"
mv "$3.tmp" "$3"
# Opened for reading too, so that it does not wait for a run that has died.
if [ -p bell ]; then echo 1<> bell; fi
