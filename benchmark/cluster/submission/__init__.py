"""Write one or more runs as the directory tree that MLCommons' submission checker reads."""
