"""The environments on a node that a run uses: found by their fingerprint, and protected from removal meanwhile."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from benchmark.code import PACKAGE

# The file that the module python_env_install writes into a complete environment.
MARK = ".llm-benchmark"


def find_environment(directory: str, fingerprint: str) -> Path:
    """Return the environment with that fingerprint: see fleet/scripts/find_environment.sh.

    If there is none, or the fingerprint is empty: the directory in the settings.
    """
    base = Path(directory).expanduser()
    for found in (base, *base.parent.glob(f"{base.name}-????????????")) if fingerprint else ():
        with suppress(OSError, IndexError):
            if (found / MARK).read_text(encoding="utf-8").split()[0] == fingerprint:
                return found
    return base


def hold_environments(*directories: Path) -> None:
    """Protect these environments, and the one that this process runs in, from removal until the process ends.

    They are marked as used now as well: the least recently used are removed first.
    """
    # DIRECTORY/code/HASH/lib/python3.11/site-packages/benchmark
    code = PACKAGE.joinpath(*[".."] * 4)
    for directory in (code, code / "../..", *directories):
        mark = directory / MARK
        with suppress(OSError):
            # Open until the end; child processes do not inherit it.
            fcntl.flock(os.open(mark, os.O_RDONLY), fcntl.LOCK_SH)
            os.utime(mark)
