"""Which wheels a node needs for its Python and platform, from the requirements and the wheels' own metadata.

The nodes' pip gets exactly these, each with its hash, and decides nothing. The controller's Python may differ from the
node's, so the controller's pip cannot do this: it evaluates markers for its own Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from packaging.markers import Environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, field_validator

from benchmark.errors import InputError

PLATFORM = re.compile(r"manylinux_2_(\d+)_(\w+)")
# Other names of the same platforms, used by older wheels.
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# The oldest glibc that wheels are built for: 2.5 on x86, 2.17 elsewhere.
OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
# A hash option of `pip`: the checksum of one wheel of a package; each Python may have its own wheel.
CHECKSUM = re.compile(r"\s--hash=sha256:([0-9a-f]{64})(?=\s|$)")
# Each pass adds the requirements of the wheels chosen in the last one; real sets need five or six passes.
MAX_PASSES = 50


class Wheel(BaseModel):
    """One wheel, with the metadata needed to choose it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[A-Za-z0-9_.+!-]+\.whl$", description="its name in the wheelhouse")
    name: str = Field(description="the package's canonical name")
    version: str
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: str = Field(description="kind of source that it came from")
    requires: list[str] = Field([], description="Requires-Dist of its metadata")
    requires_python: str = Field("", description="Requires-Python of its metadata; empty: any")

    @property
    def locked(self) -> str:
        """The line of a requirements file that selects exactly this wheel."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


class Target(BaseModel):
    """A kind of node: its CPython and the newest wheels that its glibc supports."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str = Field(pattern=r"^3\.\d+$", description="such as 3.11")
    platform: str = Field(description="such as manylinux_2_28_x86_64: glibc 2.28 or newer on x86-64")

    @field_validator("platform")
    @classmethod
    def _known(cls, value: str) -> str:
        if not PLATFORM.fullmatch(value):
            raise ValueError("a platform is written as manylinux_2_28_x86_64: glibc 2.28 or newer on x86-64")
        return value

    def __str__(self) -> str:
        _, glibc, machine = self._parts()
        return f"Python {self.python} on {machine} with glibc 2.{glibc}"

    def _parts(self) -> tuple[tuple[int, int], int, str]:
        match = PLATFORM.fullmatch(self.platform)
        assert match  # noqa: S101 # validated above
        return (3, int(self.python.split(".")[1])), int(match[1]), match[2]

    def platforms(self) -> list[str]:
        """Return the platform tags of the wheels that fit, the best one first."""
        _, glibc, machine = self._parts()
        names = []
        for minor in range(glibc, OLDEST_GLIBC.get(machine, 17) - 1, -1):
            names.append(f"manylinux_2_{minor}_{machine}")
            names += [f"{LEGACY[minor]}_{machine}"] if minor in LEGACY else []
        return [*names, f"linux_{machine}"]

    def tags(self) -> dict[Tag, int]:
        """Return the tags of the wheels that fit, each with its rank (0 the best)."""
        python, _, _ = self._parts()
        interpreter, platforms = f"cp{python[0]}{python[1]}", self.platforms()
        own = cpython_tags(python, abis=[interpreter], platforms=platforms)
        every = [*own, *compatible_tags(python, interpreter, platforms)]
        return {tag: rank for rank, tag in reversed(list(enumerate(every)))}

    def environment(self, extra: str = "") -> dict[str, str]:
        """Return the environment for evaluating markers."""
        _, _, machine = self._parts()
        reported: Environment = {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return {**{str(name): str(value) for name, value in reported.items()}, "extra": extra}


@dataclass
class Wanted:
    """The combined requirements on one package."""

    specifiers: SpecifierSet = field(default_factory=SpecifierSet)
    extras: set[str] = field(default_factory=set)
    by: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Missing:
    """A package without a suitable wheel."""

    name: str
    requirement: str
    by: tuple[str, ...]

    def __str__(self) -> str:
        return self.requirement + (f" (for {', '.join(self.by)})" if self.by else "")


@dataclass(frozen=True)
class Choice:
    """The wheels for a target, sorted by name, and what is missing."""

    wheels: tuple[Wheel, ...]
    missing: tuple[Missing, ...]


def parse_requirements(text: str) -> list[Requirement]:
    """Return the requirements in a file's text. Raises InputError if a line is more than a plain requirement.

    Checksums (`--hash`) are allowed: see `parse_checksums`.
    """
    found = []
    for number, stated in _statements(text):
        try:
            requirement = Requirement(CHECKSUM.sub("", stated).strip())
        except InvalidRequirement:
            requirement = None
        if requirement is None or requirement.url:
            raise InputError(
                f"Line {number} of the requirements is {stated!r}: with a wheelhouse each must be a package with its "
                "version, such as numpy==2.4.6."
            )
        found.append(requirement)
    return found


def parse_checksums(text: str) -> list[tuple[Requirement, frozenset[str]]]:
    """Return the requirements with the SHA-256 hashes allowed for the wheels of each; none: any.

    Raises InputError like `parse_requirements`.
    """
    stated = [frozenset(CHECKSUM.findall(one)) for _, one in _statements(text)]
    return list(zip(parse_requirements(text), stated, strict=True))


def checksums(text: str) -> dict[str, frozenset[str]]:
    """Return the SHA-256 hashes allowed for each package's wheels; empty if the file has none."""
    found: dict[str, frozenset[str]] = {}
    for requirement, sums in parse_checksums(text):
        if sums:
            name = canonicalize_name(requirement.name)  # a package may occur once for each Python
            found[name] = found.get(name, frozenset()) | sums
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, requirement) of a requirements file, without comments and with continuation lines joined."""
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        stated = re.sub(r"(^|\s)#.*$", "", line).strip()
        begun = begun if held else number
        held += stated.removesuffix("\\")
        if held.strip() and not stated.endswith("\\"):
            yield begun, held.strip()
            held = ""
    if held.strip():
        yield begun, held.strip()


def choose(requirements: Iterable[Requirement], wheels: Iterable[Wheel], target: Target) -> Choice:
    """Return which of `wheels` the target needs: of each package the newest that meets all requirements.

    Raises InputError if the packages' requirements never settle.
    """
    roots, suited = list(requirements), _suited(wheels, target)
    chosen: dict[str, Wheel] = {}
    for _ in range(MAX_PASSES):
        wanted = _wanted(roots, chosen, target)
        best = {name: wheel for name, one in wanted.items() if (wheel := _best(suited.get(name, []), one))}
        if best == chosen:
            missing = [
                Missing(name, _stated(name, one), tuple(sorted(one.by)))
                for name, one in sorted(wanted.items())
                if name not in chosen
            ]
            return Choice(tuple(chosen[name] for name in sorted(chosen)), tuple(missing))
        chosen = best
    raise InputError(f"The packages' requirements contradict each other for {target}: change a pin.")


def _suited(wheels: Iterable[Wheel], target: Target) -> dict[str, list[Wheel]]:
    """Return each package's wheels that fit the target, newest first and, within a version, most specific first."""
    tags = target.tags()
    ranked: dict[str, list[tuple[Version, int, Wheel]]] = {}
    for wheel in wheels:
        _, version, _, own = parse_wheel_filename(wheel.file)
        ranks = [tags[tag] for tag in own if tag in tags]
        # The newest patch release: a wheel that requires 3.11.2 still fits Python 3.11.
        if ranks and f"{target.python}.99" in SpecifierSet(wheel.requires_python):
            ranked.setdefault(wheel.name, []).append((version, -min(ranks), wheel))
    return {
        name: [wheel for _, _, wheel in sorted(found, key=lambda entry: entry[:2], reverse=True)]
        for name, found in ranked.items()
    }


def _wanted(roots: list[Requirement], chosen: dict[str, Wheel], target: Target) -> dict[str, Wanted]:
    """Return the requirements of the roots, and of the chosen wheels that they lead to, on each package."""
    wanted: dict[str, Wanted] = {}
    done: set[tuple[str, str]] = set()
    open_ends = [("", requirement) for requirement in roots if _applies(requirement, target, "")]
    while open_ends:
        by, requirement = open_ends.pop()
        name = canonicalize_name(requirement.name)
        one = wanted.setdefault(name, Wanted())
        one.specifiers &= requirement.specifier
        one.extras |= requirement.extras
        one.by |= {by} - {""}
        if name not in chosen:
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                open_ends += ((name, more) for more in _requires(chosen[name], target, extra))
    return wanted


def _requires(wheel: Wheel, target: Target, extra: str) -> Iterator[Requirement]:
    for text in wheel.requires:
        requirement = Requirement(text)
        if _applies(requirement, target, extra):
            yield requirement


def _applies(requirement: Requirement, target: Target, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(target.environment(extra))


def _best(wheels: list[Wheel], wanted: Wanted) -> Wheel | None:
    versions = [Version(wheel.version) for wheel in wheels]
    fit = set(wanted.specifiers.filter(versions))  # a pre-release only if nothing else fits
    return next((wheel for wheel, version in zip(wheels, versions, strict=True) if version in fit), None)


def _stated(name: str, wanted: Wanted) -> str:
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    return f"{name}{extras}{wanted.specifiers}"
