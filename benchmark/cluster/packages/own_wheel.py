"""Build the package as one wheel: what goes to every node, byte for byte the same for the same source."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

from benchmark.errors import SetupError
from benchmark.locks import take

# The oldest time that a zip archive can hold: the wheel's bytes must not depend on when it was built.
EPOCH = "315532800"
PACKAGE = "benchmark"


def build_wheel(checkout: Path) -> Path:
    """Return the wheel of the checkout's package, built anew where a source file is newer than it, added or gone.

    Safe to be called by many processes at once: one builds and the others wait; where the file system has no locks each
    may build, and puts a whole wheel in its place. Raises SetupError with what the builder said.
    """
    target = checkout / ".build"
    target.mkdir(exist_ok=True)
    with (target / ".lock").open("w") as lock:
        take(lock.fileno(), wait=True)
        package = _files(checkout)
        sources = [checkout / "pyproject.toml", checkout / "README.md", *package]
        newest = max(path.stat().st_mtime_ns for path in sources)
        names = {path.relative_to(checkout).as_posix() for path in package}
        for wheel in target.glob("*.whl"):
            with suppress(FileNotFoundError):  # another process may have found it old too
                if wheel.stat().st_mtime_ns > newest and _packed(wheel) == names:
                    return wheel
                wheel.unlink()
        with tempfile.TemporaryDirectory(dir=target) as beside:
            built = _build(checkout, Path(beside))
            return built.replace(target / built.name)


def _files(checkout: Path) -> list[Path]:
    """Return the package's files. The times of directories tell nothing: Python puts its `__pycache__` there."""
    found = (checkout / PACKAGE).rglob("*")
    return [path for path in found if "__pycache__" not in path.parts and path.is_file()]


def _packed(wheel: Path) -> set[str]:
    """Return the package's files in a wheel."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith(f"{PACKAGE}/")}


def _build(checkout: Path, directory: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "flit_core.wheel", "--outdir", str(directory), str(checkout)],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = " ".join(done.stderr.split())[-500:]
        raise SetupError(f"The package's wheel cannot be built (is requirements.txt installed?): {said}")
    return wheels[0]
