"""Locks are taken by processes of their own, for which files below a directory may have none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.locks import NO_LOCKS, take
from tests.no_flock import no_flock

TAKE = """
import sys
from benchmark.locks import take
with open(sys.argv[1], "w") as file:
    print(take(file.fileno()), take(file.fileno(), wait=True))
"""


def test_a_lock_is_one_processs_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as one, path.open("w") as other:
        assert take(one.fileno()) == "taken"
        assert take(other.fileno()) == "busy"
    with path.open("w") as again:
        assert take(again.fileno()) == "taken"


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_a_file_system_without_locks_is_no_error(number: int, tmp_path: Path) -> None:
    environment = {**os.environ, **no_flock(tmp_path, tmp_path, number)}
    command = [sys.executable, "-c", TAKE, str(tmp_path / "lock")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "no locks no locks\n", done.stderr


def test_any_other_error_is_one(tmp_path: Path) -> None:
    environment = {**os.environ, **no_flock(tmp_path, tmp_path, errno.EIO)}
    command = [sys.executable, "-c", TAKE, str(tmp_path / "lock")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "Input/output error" in done.stderr
