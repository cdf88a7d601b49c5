"""Bring the wheels that a node lacks from the controller's wheelhouse, for the action `python_env`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_action import CHECKOUT, NodeAction, NodeFailure
from stream import StreamError, send_files

from benchmark.cluster.wheelhouse import incomplete, load
from benchmark.cluster.wheels import Target, Wheel, choose, parse_requirements
from benchmark.errors import InputError

WHEELS = CHECKOUT / "roles/python_env/files/wheels.sh"


@dataclass(frozen=True)
class Supply:
    """What one node needs, and what of it has to travel."""

    action: NodeAction
    ready: str
    """The directory on the node where wheels are laid ready; absolute."""
    locked: list[str]
    """Every package of the environment, with version and hash."""
    files: list[Path]

    @property
    def size(self) -> int:
        """Bytes of the wheels that have to travel."""
        return sum(file.stat().st_size for file in self.files)

    def send(self, wheel: Path) -> None:
        """Send the wheels, and the benchmark's own, in one stream. Raises NodeFailure where they do not arrive."""
        action, limit = self.action, int(self.action.setting("python_env_timeout_s"))

        def put(file: Path, place: str) -> None:
            action.shell(f"mkdir -p {shlex.quote(self.ready)}")
            action._transfer_file(str(file), place)

        try:
            send_files(action._connection, [*self.files, wheel], self.ready, limit, put)
        except StreamError as error:
            full = "No space left" in str(error) or "Disk quota" in str(error)
            remedy = (
                "the disk is full: make room, or set python_env_dir to a larger disk."
                if full
                else f"{error}; what has arrived is kept, run again (python_env_timeout_s = {limit})."
            )
            raise NodeFailure(
                f"{self.size / 1e9:.1f} GB of wheels could not be sent to {self.ready}: {remedy}"
            ) from None


class HouseOnController:
    """The wheelhouse that a node's settings name. Raises InputError where it cannot be used."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.listing = directory, load(directory)

    def supply(self, action: NodeAction, directory: str, requirements: str) -> Supply:
        """Ask the node what it is and has, in one contact, and return what it needs.

        Raises NodeFailure where the wheelhouse lacks a wheel for this node's Python or platform.
        """
        # Beside the environment, so on the disk that was checked; per node, for a home may be shared.
        parent, _, name = directory.rstrip("/").rpartition("/")
        place = f"{parent}/.{name}.wheels/{action.node}"
        words = [directory, str(action.setting("python_env_python")), place]
        script = shlex.quote(WHEELS.read_text(encoding="utf-8"))
        code, out, err = action.shell(f"sh -c {script} wheels {shlex.join(words)}")
        told, _, rest = out.partition("\ninstalled\n")
        installed, _, ready = rest.partition("ready\n")
        try:
            facts = json.loads(told.splitlines()[-1])
        except (ValueError, IndexError):
            raise NodeFailure(
                f"The node's Python could not be asked ({code}): {' '.join(err.split())[-300:]}"
            ) from None
        needed = self._choose(facts, requirements)
        there = set(installed.splitlines())
        here = {tuple(line.split(None, 1)) for line in ready.splitlines()}
        missing = [w for w in needed if w.locked not in there and (w.sha256, w.file) not in here]
        return Supply(
            action=action,
            ready=str(facts["ready"]),
            locked=[wheel.locked for wheel in needed],
            files=[self.directory / wheel.file for wheel in missing],
        )

    def _choose(self, facts: dict[str, Any], requirements: str) -> tuple[Wheel, ...]:
        try:
            target = target_of(facts)
            choice = choose(parse_requirements(requirements), self.listing.wheels, target)
        except InputError as error:
            raise NodeFailure(str(error)) from None
        if choice.missing:
            raise NodeFailure(incomplete(self.directory, target, choice))
        return choice.wheels


def target_of(facts: dict[str, Any]) -> Target:
    """Return what kind of node it is. Raises InputError where no wheelhouse can be made for it."""
    libc, _, version = str(facts.get("libc") or "").partition(" ")
    _, _, minor = version.partition(".")
    fit = facts.get("implementation") == "cpython" and not facts.get("threads") and facts.get("system") == "linux"
    if not fit or libc != "glibc" or not minor.isdigit():
        raise InputError(
            "A wheelhouse is for CPython on Linux with glibc, and this node's python_env_python is "
            f"{facts.get('implementation')}{' without a global lock' if facts.get('threads') else ''} "
            f"on {facts.get('system')} with {facts.get('libc') or 'another C library'}: set python_env_python to one."
        )
    return Target(python=str(facts.get("python")), platform=f"manylinux_2_{minor}_{facts.get('machine')}")
