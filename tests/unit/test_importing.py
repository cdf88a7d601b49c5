"""What is imported once and stays."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from benchmark.importing import BLAS_THREADS, importing

# Threads of a process that has loaded a command, and whether what it starts would know.
THREADS = f"""
import os, pathlib
from benchmark import cli
cli.main(["aggregate", "/nowhere"])
print(len(list(pathlib.Path("/proc/self/task").iterdir())), "{BLAS_THREADS}" in os.environ)
"""


def test_the_collector_is_still_while_imports_go_on() -> None:
    frozen = gc.get_freeze_count()
    brought: list[list[int]] = []

    def bring() -> None:
        with importing():
            assert not gc.isenabled()
            brought.extend([number] for number in range(1000))
            raise ImportError

    with pytest.raises(ImportError):
        bring()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(brought)
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled(), "as it was"
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there are no further threads")
@pytest.mark.parametrize(("given", "reported"), [({}, "1 False"), ({BLAS_THREADS: "2"}, "2 True")])
def test_numpy_starts_no_threads_for_us(given: dict[str, str], reported: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=inherited | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == reported
