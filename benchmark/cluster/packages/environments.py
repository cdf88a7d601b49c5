"""The environments that a node needs, each identified by a fingerprint of its contents.

Nodes keep environments by fingerprint: two checkouts that share an account do not replace each other's.
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

# Part of the package, since runs are started with it too.
FIND = Path(__file__).parents[2] / "fleet" / "scripts" / "find_environment.sh"
# Within an existing environment: virtual ones, conda's and the system's (/usr) all have it.
PYTHON = "bin/python3"
_wheelhouse_sha256 = cache(lambda directory: load_wheelhouse(directory).sha256())


@dataclass(frozen=True)
class Wanted:
    """A virtual environment: where it is, what it is made from, and what it contains."""

    settings: str
    """The prefix of its settings' names."""
    directory: str
    python: str
    requirements: str
    """The text of `file`."""
    file: str
    torch_index_url: str = ""
    wheelhouse: Path | None = None
    """The directory on the controller from which all of its packages come."""
    existing: str = ""
    """The directory of an existing environment, into which nothing is installed; `directory` then contains only our own
    code. Empty: the role makes one."""

    @classmethod
    def of(cls, role: str, setting: Callable[[str], Any], checkout: Path) -> Wanted:
        """Return the environment for a role by a node's settings. Raises OSError if requirements cannot be read."""
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
        """Return a hash of everything that determines the environment.

        Raises InputError if the wheelhouse cannot be used.
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
    """Return the directory of an existing environment, which the role only checks; empty: it makes one."""
    return "" if setting(f"{role}_manage") else str(setting(f"{role}_dir")).rstrip("/")


def _without_torch(role: str, file: str) -> bool:
    """Return whether an engine's lock leaves torch to an index of builds."""
    lock = ENGINES[role].lock_of(file) if role in ENGINES else None
    return lock is not None and bool(lock.torch)


def interpreter(role: str, setting: Callable[[str], Any]) -> str:
    """Return the Python that a role's environment is made with, or that an existing environment has."""
    if existing := existing_environment(role, setting):
        return f"{existing}/{PYTHON}"
    # An engine's environment is made with the run's Python unless it has its own setting.
    return str(setting(f"{role}_python") or setting("python_env_python"))


def with_find(script: str) -> str:
    """Return a shell script, preceded by the function that finds an environment on the node."""
    return f"find_environment() (\n{FIND.read_text(encoding='utf-8')})\n{script}"
