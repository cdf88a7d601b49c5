"""Send the wheels that a node lacks from the controller's wheelhouse, for `EnvironmentAction`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_action import CHECKOUT, NodeAction, NodeFailure
from stream import StreamError, send_files

from benchmark.cluster.packages.environments import Wanted
from benchmark.cluster.packages.resolver import Target, Wheel, choose, parse_requirements
from benchmark.cluster.packages.wheelhouse import incomplete, load, require_checksums
from benchmark.errors import InputError
from benchmark.unwritable import errno_in, remedy

WHEELS = CHECKOUT / "roles/python_env/files/wheels.sh"


@dataclass(frozen=True)
class Supply:
    """The wheels that one node needs, and those that must be sent."""

    action: NodeAction
    ready: str
    """The directory for wheels on the node; absolute."""
    locked: list[str]
    """Every package of the environment, with version and hash."""
    files: list[Path]
    settings: str
    """The prefix of the environment's settings' names."""

    @property
    def size(self) -> int:
        """The total size of the wheels to send, in bytes."""
        return sum(file.stat().st_size for file in self.files)

    def send(self, *more: Path) -> None:
        """Send the wheels, and `more` files, in one stream. Raises NodeFailure if they do not arrive."""
        action, limit = self.action, int(self.action.setting(f"{self.settings}_timeout_s"))

        try:
            send_files(action.way, [*self.files, *more], self.ready, limit)
        except StreamError as error:
            todo = remedy(errno_in(str(error)), f"{self.settings}_dir")
            raise NodeFailure(
                f"{self.size / 1e9:.1f} GB of wheels could not be sent to {self.ready}: {error}"
                + (
                    f". {todo}"
                    if todo
                    else f"; what has arrived is kept, run again ({self.settings}_timeout_s = {limit})."
                )
            ) from None


class HouseOnController:
    """The wheelhouse in a node's settings. Raises InputError if it cannot be used."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.listing = directory, load(directory)

    def supply(self, action: NodeAction, wanted: Wanted) -> Supply:
        """Ask the node for its platform and wheels in one contact, and return what it needs.

        Raises NodeFailure if the wheelhouse lacks a wheel for this node's Python or platform.
        """
        # Beside the environment, on the disk that preflight checked; per node, since a home directory may be shared.
        parent, _, name = wanted.directory.rstrip("/").rpartition("/")
        place = f"{parent}/.{name}.wheels/{action.node}"
        words = [wanted.directory, wanted.python, place]
        script = shlex.quote(WHEELS.read_text(encoding="utf-8"))
        code, out, err = action.shell(f"sh -c {script} wheels {shlex.join(words)}")
        reported, _, rest = out.partition("\ninstalled\n")
        installed, _, ready = rest.partition("ready\n")
        try:
            facts = json.loads(reported.splitlines()[-1])
        except (ValueError, IndexError):
            raise NodeFailure(
                f"The node's Python could not be queried ({code}): {' '.join(err.split())[-300:]}"
            ) from None
        needed = self._choose(facts, wanted)
        there = set(installed.splitlines())
        here = {tuple(line.split(None, 1)) for line in ready.splitlines()}
        missing = [w for w in needed if w.locked not in there and (w.sha256, w.file) not in here]
        return Supply(
            action=action,
            ready=str(facts["ready"]),
            locked=[wheel.locked for wheel in needed],
            files=[self.directory / wheel.file for wheel in missing],
            settings=wanted.settings,
        )

    def _choose(self, facts: dict[str, Any], wanted: Wanted) -> tuple[Wheel, ...]:
        try:
            target = target_of(facts, wanted.settings)
            choice = choose(parse_requirements(wanted.requirements), self.listing.wheels, target)
            require_checksums(self.directory, wanted.requirements, choice)
        except InputError as error:
            raise NodeFailure(str(error)) from None
        if choice.missing:
            raise NodeFailure(incomplete(self.directory, target, choice, wanted.file))
        return choice.wheels


def target_of(facts: dict[str, Any], settings: str = "python_env") -> Target:
    """Return the node's Python and platform. Raises InputError if no wheelhouse can be made for it."""
    libc, _, version = str(facts.get("libc") or "").partition(" ")
    _, _, minor = version.partition(".")
    fit = facts.get("implementation") == "cpython" and not facts.get("threads") and facts.get("system") == "linux"
    if not fit or libc != "glibc" or not minor.isdigit():
        raise InputError(
            f"A wheelhouse needs CPython on Linux with glibc, but this node's {settings}_python is "
            f"{facts.get('implementation')}{' without a GIL' if facts.get('threads') else ''} on {facts.get('system')} "
            f"with {facts.get('libc') or 'another C library'}: set {settings}_python to one that fits."
        )
    return Target(python=str(facts.get("python")), platform=f"manylinux_2_{minor}_{facts.get('machine')}")
