"""The source of the results: the package's version on the nodes, this checkout's commit and its wheel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.cluster.packages.own_wheel import EPOCH, build_wheel
from benchmark.cluster.submission.parts import Part
from benchmark.cluster.submission.readmes import render
from benchmark.errors import SetupError
from benchmark.files import file_sha256
from benchmark.rundir import PROGRAM

CHECKOUT = Path(__file__).resolve().parents[3]


def source_readme(parts: Iterable[Part]) -> str:
    """Return src/README.md; for an installed package without a checkout it only has versions."""
    installed = sorted({part.environment.packages.get(PROGRAM, __version__) for part in parts})
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return render(
        "src_readme.md.j2",
        version=__version__,
        installed=installed,
        commit=commit,
        dirty=bool(changes),
        wheel=_wheel(),
        epoch=EPOCH,
    )


def _git(*words: str) -> str:
    if not (CHECKOUT / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _wheel() -> dict[str, Any] | None:
    if not (CHECKOUT / "pyproject.toml").is_file():
        return None
    try:
        wheel = build_wheel(CHECKOUT)
    except (SetupError, OSError):
        return None
    return {"name": wheel.name, "sha256": file_sha256(wheel)}
