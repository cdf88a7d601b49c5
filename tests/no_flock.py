"""A file system without locks, as Lustre may be and some NFS: flock fails on every file below a directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Where its files are, and with which number of errno it fails.
PLACE, ERRNO = "NO_FLOCK_BELOW", "NO_FLOCK_ERRNO"

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int flock(int descriptor, int operation) {
  const char *below = getenv("NO_FLOCK_BELOW"), *number = getenv("NO_FLOCK_ERRNO");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (below && length > 0) {
    path[length] = 0;
    if (strncmp(path, below, strlen(below)) == 0) {
      errno = atoi(number);
      return -1;
    }
  }
  int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
  return real(descriptor, operation);
}
"""


def no_flock(directory: Path, below: Path, number: int) -> dict[str, str]:
    """Return the environment of a process for which files below `below` have no locks; `directory` is built in."""
    source, library = directory / "no_flock.c", directory / "no_flock.so"
    source.write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), PLACE: str(below), ERRNO: str(number)}
