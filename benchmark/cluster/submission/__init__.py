"""One or several runs as the directory tree that MLCommons' submission checker reads."""
