"""The commands of `python3 -m benchmark`, one file each."""
