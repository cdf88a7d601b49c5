"""The version of the code that measures: a hash of the package's files, and the commit of their checkout."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

from benchmark.provisioned import ENGINES
from benchmark.records import Code

PACKAGE = Path(__file__).resolve().parent
# Parts of a checkout that can change a number or how it is measured; inventories are meant to be edited.
DECIDES = (
    "benchmark",
    "playbooks",
    "plugins",
    "roles",
    "pyproject.toml",
    "requirements-node.txt",
    *(lock.file for engine in ENGINES.values() for lock in engine.locks),
)
GIT_S = 10
# Hex digits of a hash that are shown.
SHORT = 12


def installed_sha256() -> str:
    """Return the hash of the running code, computed from its files."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return _sha256((path.relative_to(PACKAGE.parent).as_posix(), path.read_bytes()) for path in files)


def wheel_sha256(wheel: Path) -> str:
    """Return the hash of the code in a wheel, equal to `installed_sha256` where it is installed."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{PACKAGE.name}/") and not name.endswith("/")]
        return _sha256((name, archive.read(name)) for name in names)


def code_of(checkout: Path, sha256: str) -> Code:
    """Return the code with that hash, the commit of its checkout, and whether files were changed since.

    The last two are unknown without git, or without a repository that this user may read.
    """
    commit = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--", *(name for name in DECIDES if (checkout / name).exists()))
    known = bool(commit) and changed is not None
    return Code(sha256=sha256, commit=commit or "", modified=bool(changed) if known else None)


def code_words(code: Code | None) -> str:
    """Return the version in words: "1c2f9e03a1b2 (commit 8199c4cd12ab, modified)"; empty if unknown."""
    if code is None:
        return ""
    commit = f"commit {code.commit[:SHORT]}" if code.commit else "commit unknown"
    return f"{code.sha256[:SHORT]} ({commit}{', modified' if code.modified else ''})"


def _sha256(files: Iterable[tuple[str, bytes]]) -> str:
    lines = sorted(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _git(checkout: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "--no-optional-locks", *words],
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
