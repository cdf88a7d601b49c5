"""A wheelhouse: a directory of wheels on the controller, and `wheelhouse.json`, which lists them with their checksums.

`python3 -m benchmark wheelhouse` (make wheelhouse) fills it; the role python_env takes what a node needs from it.
"""

from __future__ import annotations

import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Literal

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pydantic import BaseModel, ConfigDict

from benchmark.canonical import canonical_sha256
from benchmark.cluster.packages.resolver import Choice, Target, Wheel, checksums, choose, parse_requirements
from benchmark.errors import InputError
from benchmark.files import file_sha256, read_record
from benchmark.records import SCHEMA_VERSION

MANIFEST = "wheelhouse.json"
# The default of `make wheelhouse`.
FOR_NODES = "requirements-node.txt"


class Wheelhouse(BaseModel):
    """`wheelhouse.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    made_for: list[Target]
    wheels: list[Wheel]

    @property
    def size(self) -> int:
        """The size of all wheels in bytes."""
        return sum(wheel.size for wheel in self.wheels)

    def sha256(self) -> str:
        """Return a hex SHA-256 over the wheels' names and checksums."""
        return canonical_sha256(sorted([wheel.file, wheel.sha256] for wheel in self.wheels))


def on_controller(checkout: Path, given: str) -> Path:
    """Return the directory in a setting such as `python_env_wheelhouse`; relative paths are in the checkout."""
    return checkout / Path(given).expanduser()


def load(directory: Path) -> Wheelhouse:
    """Read a wheelhouse. Raises InputError if a wheel in its manifest is missing or has another size.

    Checksums are checked by the node's pip, for every wheel that it installs.
    """
    if not directory.is_dir():
        raise InputError(f"Wheelhouse: there is no directory {directory} on the controller.")
    if not (directory / MANIFEST).exists():
        raise InputError(f"Wheelhouse: {directory} has no {MANIFEST}: make wheelhouse WHEELHOUSE={directory} fills it.")
    house = read_record(directory / MANIFEST, Wheelhouse)
    for wheel in house.wheels:
        try:
            size = (directory / wheel.file).stat().st_size
        except OSError:
            size = -1
        if size != wheel.size:
            state = "is missing" if size < 0 else f"has {size} bytes instead of {wheel.size}"
            raise InputError(
                f"Wheelhouse: {wheel.file} {state} in {directory}: copy it there again, or "
                f"make wheelhouse WHEELHOUSE={directory} anew."
            )
    return house


def require_pins(directory: Path, requirements: str, file: str = FOR_NODES) -> None:
    """Raise InputError if the wheelhouse is not complete for any kind of node, before anything is touched.

    `file`: the requirements' file.
    """
    house, parsed = load(directory), parse_requirements(requirements)
    lacking: list[tuple[Target, Choice]] = []
    for target in house.made_for:
        choice = choose(parsed, house.wheels, target)
        if not choice.missing:
            require_checksums(directory, requirements, choice)
            return
        lacking.append((target, choice))
    if not lacking:
        raise InputError(f"Wheelhouse: {directory / MANIFEST} is made for no Python: make it again.")
    target, choice = min(lacking, key=lambda entry: len(entry[1].missing))
    raise InputError(incomplete(directory, target, choice, file))


def require_checksums(directory: Path, requirements: str, choice: Choice) -> None:
    """Raise InputError if the requirements have checksums and a wheel has none of its package's."""
    stated = checksums(requirements)
    for wheel in choice.wheels if stated else ():
        if wheel.sha256 not in stated.get(wheel.name, ()):
            raise InputError(
                f"{wheel.file} in {directory} is not in the requirements' list for {wheel.name}: its SHA-256 is "
                f"{wheel.sha256}. Remove it and make the wheelhouse again."
            )


def incomplete(directory: Path, target: Target, choice: Choice, file: str = FOR_NODES) -> str:
    """Return a sentence on what a wheelhouse lacks for a target."""
    most = sorted(choice.missing, key=lambda one: one.by)[:5]  # pinned packages first
    some = ", ".join(map(str, most)) + (" ..." if len(choice.missing) > 5 else "")
    return (
        f"The wheelhouse {directory} has no wheel of {some} for {target}: make wheelhouse WHEELHOUSE={directory} "
        f"NODE_PYTHON={target.python} NODE_PLATFORM={target.platform}"
        f"{'' if file == FOR_NODES else f' REQUIREMENTS={file}'} adds what is missing."
    )


def read_wheel(path: Path, source: str) -> Wheel:
    """Return a wheel's metadata, with size and checksum. Raises InputError if it is not a wheel."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inside = next(
                entry for entry in archive.namelist() if entry.count("/") == 1 and entry.endswith(".dist-info/METADATA")
            )
            metadata = HeaderParser().parsestr(archive.read(inside).decode())
        return Wheel(
            file=path.name,
            name=canonicalize_name(name),
            version=str(version),
            size=path.stat().st_size,
            sha256=file_sha256(path),
            source=source,
            requires=metadata.get_all("Requires-Dist") or [],
            requires_python=metadata["Requires-Python"] or "",
        )
    except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration, ValueError):
        raise InputError(f"{path} is not a complete wheel: remove it.") from None
