"""The environments on a node that a run uses: found by what they hold, and kept from being removed meanwhile."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from benchmark.code import PACKAGE

# What the module python_env_install leaves in an environment that is complete.
MARK = ".llm-benchmark"


def find_environment(directory: str, fingerprint: str) -> Path:
    """Return where the environment with that fingerprint is: see fleet/scripts/find_environment.sh.

    Where there is none, or the fingerprint is empty: the directory that the settings name.
    """
    base = Path(directory).expanduser()
    for found in (base, *base.parent.glob(f"{base.name}-????????????")) if fingerprint else ():
        with suppress(OSError, IndexError):
            if (found / MARK).read_text(encoding="utf-8").split()[0] == fingerprint:
                return found
    return base


def hold_environments(*directories: Path) -> None:
    """Keep these environments, and the one that this process runs in, from being removed until it ends.

    They are marked as used now too: those that were not for the longest go first.
    """
    # DIRECTORY/code/HASH/lib/python3.11/site-packages/benchmark
    code = PACKAGE.joinpath(*[".."] * 4)
    for directory in (code, code / "../..", *directories):
        mark = directory / MARK
        with suppress(OSError):
            # Open until the end; nothing that is started inherits it.
            fcntl.flock(os.open(mark, os.O_RDONLY), fcntl.LOCK_SH)
            os.utime(mark)
