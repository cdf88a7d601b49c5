"""Environments that need no index: the tests' own has all that a node has, in the versions that are pinned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_environment(venv: Path, requirements: Path) -> None:
    """Make an environment with pip, what a requirements file pins and what that needs, and nothing else of ours.

    The files are our own, by further names: pip writes a file anew, and never changes one. What we lack in the pinned
    version is left out: the role installs it.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    for found in _needed(Requirement(line) for line in ("pip", *filter(None, lines))):
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)


def _needed(requirements: Iterable[Requirement]) -> list[Distribution]:
    """Return the packages that are installed here of those that are required, and of what they require in turn."""
    found: dict[str, Distribution] = {}
    asked: set[str] = set()
    todo = list(requirements)
    while todo:
        one = todo.pop()
        if str(one) in asked or not (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue
        asked.add(str(one))
        try:
            installed = distribution(one.name)
        except PackageNotFoundError:
            continue
        if not one.specifier.contains(installed.version, prereleases=True):
            continue
        found[canonicalize_name(one.name)] = installed
        for line in installed.requires or ():
            needs = Requirement(line)
            extras = one.extras or {""}
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in extras):
                needs.marker = None
                todo.append(needs)
    return list(found.values())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
