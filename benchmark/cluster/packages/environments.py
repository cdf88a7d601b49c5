"""The environments that a node is to have, each known by a fingerprint of what it holds.

Nodes keep environments by that: two checkouts that share an account do not replace each other's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.cluster.packages.wheelhouse import load as load_wheelhouse
from benchmark.cluster.packages.wheelhouse import on_controller
from benchmark.provisioned import ENGINES

# In the package, since a run is started with it too.
FIND = Path(__file__).parents[2] / "fleet" / "scripts" / "find_environment.sh"
# In an environment that exists: a virtual one, conda's and the system's (/usr) all have it.
PYTHON = "bin/python3"
_wheelhouse_sha256 = cache(lambda directory: load_wheelhouse(directory).sha256())


@dataclass(frozen=True)
class Wanted:
    """A virtual environment: where it is, what of, and what it holds."""

    settings: str
    """What the names of its settings begin with."""
    directory: str
    python: str
    requirements: str
    """The text of `file`."""
    file: str
    torch_index_url: str = ""
    wheelhouse: Path | None = None
    """The directory on the controller from which alone its packages come."""
    existing: str = ""
    """The directory of an environment that exists and that nothing is installed into; `directory` is then of our own
    code alone. Empty: the role makes one."""

    @classmethod
    def of(cls, role: str, setting: Callable[[str], Any], checkout: Path) -> Wanted:
        """Return what a role is to make by a node's settings. Raises OSError where the requirements cannot be read."""
        file = str(setting(f"{role}_requirements"))
        own = role == "python_env"
        if existing := existing_environment(role, setting):
            directory = str(setting("python_env_code_dir")) if own else existing
            return cls(role, directory, interpreter(role, setting), "", file, existing=existing)
        house = str(setting(f"{role}_wheelhouse"))
        return cls(
            role,
            str(setting(f"{role}_dir")),
            interpreter(role, setting),
            (checkout / Path(file).expanduser()).read_text(encoding="utf-8"),
            file,
            torch_index_url=str(setting("python_env_torch_index_url")) if own or _without_torch(role, file) else "",
            wheelhouse=on_controller(checkout, house) if house else None,
        )

    def fingerprint(self) -> str:
        """Return a hash of all of which a change makes another environment.

        Raises InputError where the wheelhouse cannot be used.
        """
        if self.existing:
            return canonical_sha256({"existing": self.existing})
        made_of = {
            "requirements": self.requirements,
            "python": self.python,
            "torch_index_url": self.torch_index_url,
        }
        if self.wheelhouse:
            made_of["wheelhouse"] = _wheelhouse_sha256(self.wheelhouse)
        return canonical_sha256(made_of)


def existing_environment(role: str, setting: Callable[[str], Any]) -> str:
    """Return the directory of the environment that exists and that a role only checks; empty: it makes one."""
    return "" if setting(f"{role}_manage") else str(setting(f"{role}_dir")).rstrip("/")


def _without_torch(role: str, file: str) -> bool:
    """Return whether an engine's lock leaves its torch to an index of builds."""
    lock = ENGINES[role].lock_of(file) if role in ENGINES else None
    return lock is not None and bool(lock.torch)


def interpreter(role: str, setting: Callable[[str], Any]) -> str:
    """Return the Python that a role's environment is made from, or that it has where it exists."""
    if existing := existing_environment(role, setting):
        return f"{existing}/{PYTHON}"
    # An engine's is made with the run's, unless it has one of its own.
    return str(setting(f"{role}_python") or setting("python_env_python"))


def with_find(script: str) -> str:
    """Return a script of the shell, and before it the function that finds an environment on the node."""
    return f"find_environment() (\n{FIND.read_text(encoding='utf-8')})\n{script}"
