"""Build the package as one wheel for all nodes, byte for byte the same for the same source."""

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

# The oldest time that a zip archive can store: the wheel's bytes must not depend on the time of the build.
EPOCH = "315532800"
PACKAGE = "benchmark"


def build_wheel(checkout: Path) -> Path:
    """Return the wheel of the checkout's package, rebuilt if a source file is newer, added or gone.

    Many processes may call this at once: one builds and the others wait. On a file system without locks each may build,
    and puts a complete wheel in place. Raises SetupError with the builder's message.
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
            with suppress(FileNotFoundError):  # another process may have removed it too
                if wheel.stat().st_mtime_ns > newest and _packed(wheel) == names:
                    return wheel
                wheel.unlink()
        with tempfile.TemporaryDirectory(dir=target) as beside:
            built = _build(checkout, Path(beside))
            return built.replace(target / built.name)


def _files(checkout: Path) -> list[Path]:
    """Return the package's files, without directories, whose times change with Python's `__pycache__`."""
    found = (checkout / PACKAGE).rglob("*")
    return [path for path in found if "__pycache__" not in path.parts and path.is_file()]


def _packed(wheel: Path) -> set[str]:
    """Return the names of the package's files in a wheel."""
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
