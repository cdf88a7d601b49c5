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

from benchmark.cluster.wheels import Choice, Target, Wheel, choose, parse_requirements
from benchmark.errors import InputError
from benchmark.files import file_sha256, read_record
from benchmark.records import SCHEMA_VERSION
from benchmark.settings import canonical_sha256

MANIFEST = "wheelhouse.json"


class Wheelhouse(BaseModel):
    """`wheelhouse.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    made_for: list[Target]
    wheels: list[Wheel]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    def sha256(self) -> str:
        """Return a hex SHA-256 over the wheels' names and checksums."""
        return canonical_sha256(sorted([wheel.file, wheel.sha256] for wheel in self.wheels))


def on_controller(checkout: Path, given: str) -> Path:
    """Return the directory that `python_env_wheelhouse` means: relative to the checkout, `~` the user's home."""
    return checkout / Path(given).expanduser()


def load(directory: Path) -> Wheelhouse:
    """Return what the directory holds. Raises InputError where a wheel that its manifest lists is absent or another.

    Sizes are looked at here; the checksums are checked by the node's pip, for every wheel that it installs.
    """
    if not directory.is_dir():
        raise InputError(f"python_env_wheelhouse: there is no directory {directory} on the controller.")
    if not (directory / MANIFEST).exists():
        raise InputError(
            f"python_env_wheelhouse: {directory} has no {MANIFEST}: make wheelhouse WHEELHOUSE={directory} fills it."
        )
    house = read_record(directory / MANIFEST, Wheelhouse)
    for wheel in house.wheels:
        try:
            size = (directory / wheel.file).stat().st_size
        except OSError:
            size = -1
        if size != wheel.size:
            state = "is missing" if size < 0 else f"has {size} bytes in place of {wheel.size}"
            raise InputError(
                f"python_env_wheelhouse: {wheel.file} {state} in {directory}: copy it there again, or "
                f"make wheelhouse WHEELHOUSE={directory} anew."
            )
    return house


def require_pins(directory: Path, requirements: str) -> None:
    """Raise InputError where the wheelhouse is complete for no kind of node: nothing has been touched yet then."""
    house, parsed = load(directory), parse_requirements(requirements)
    lacking: list[tuple[Target, Choice]] = []
    for target in house.made_for:
        choice = choose(parsed, house.wheels, target)
        if not choice.missing:
            return
        lacking.append((target, choice))
    if not lacking:
        raise InputError(f"python_env_wheelhouse: {directory / MANIFEST} is made for no Python: make it anew.")
    target, choice = min(lacking, key=lambda entry: len(entry[1].missing))
    raise InputError(incomplete(directory, target, choice))


def incomplete(directory: Path, target: Target, choice: Choice) -> str:
    """Return the sentence about what a wheelhouse lacks for a target."""
    most = sorted(choice.missing, key=lambda one: one.by)[:5]  # first what is pinned
    some = ", ".join(map(str, most)) + (" ..." if len(choice.missing) > 5 else "")
    return (
        f"The wheelhouse {directory} has no wheel of {some} for {target}: make wheelhouse WHEELHOUSE={directory} "
        f"NODE_PYTHON={target.python} NODE_PLATFORM={target.platform} adds what is missing."
    )


def read_wheel(path: Path, source: str) -> Wheel:
    """Return what a wheel says of itself, with size and checksum. Raises InputError where it is none."""
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
        raise InputError(f"{path} is not a whole wheel: remove it.") from None
