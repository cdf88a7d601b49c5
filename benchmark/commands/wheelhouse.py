"""`python3 -m benchmark wheelhouse`: fill a wheelhouse with exactly the wheels that a kind of node needs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmark.cluster.packages.own_wheel import EPOCH
from benchmark.cluster.packages.resolver import Choice, Missing, Target, Wheel, choose, parse_requirements
from benchmark.cluster.packages.wheelhouse import MANIFEST, Wheelhouse, read_wheel, require_checksums
from benchmark.errors import EXIT_VALID, InputError, SetupError
from benchmark.files import file_sha256, read_record, write_record

INDEX, TORCH_INDEX, GIVEN = "package index", "torch index", "was in the directory"
# Each round downloads the requirements of the last round's wheels.
MAX_ROUNDS = 20
STDERR = 2
PIP = (sys.executable, "-m", "pip", "--no-color", "--disable-pip-version-check", "--no-input")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `wheelhouse`."""
    parser.epilog = (
        f"Writes {MANIFEST} beside the wheels, with every checksum. Can be run again into the same directory for "
        "another kind of node: existing wheels are not downloaded again, and wheels of old pins are removed. pip's own "
        "configuration (mirrors, proxies) applies."
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--requirements", type=Path, default=Path("requirements-node.txt"), metavar="FILE")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument(
        "--python", default=own, metavar="3.N", help="Python of the nodes (default: %(default)s, that of this Python)"
    )
    parser.add_argument(
        "--platform",
        default="manylinux_2_28_x86_64",
        metavar="TAG",
        help="glibc and machine of the nodes (default: %(default)s, which needs glibc 2.28 or newer on x86-64)",
    )
    parser.add_argument("--torch-index-url", default="", metavar="URL", help="package index of torch builds")


def main(arguments: argparse.Namespace) -> int:
    """Fill the wheelhouse, print its content, return the exit code."""
    directory: Path = arguments.directory.expanduser().absolute()
    try:
        target = Target(python=arguments.python, platform=arguments.platform)
    except ValidationError as error:
        reported = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise InputError(f"--python {arguments.python} --platform {arguments.platform}: {reported}.") from None
    try:
        requirements = arguments.requirements.read_text(encoding="utf-8")
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be used: {error.strerror}.") from None
    house, brought, unneeded = Filling(directory, target, arguments.torch_index_url).fill(requirements)
    made_for = "; ".join(map(str, house.made_for))
    print(
        f"{directory}: {len(house.wheels)} wheels, {house.size / 1e6:,.0f} MB, {brought} of them new, for {made_for}."
    )
    if unneeded:
        print(f"Not needed, and left in place: {', '.join(unneeded)}.")
    return EXIT_VALID


class Filling:
    """The state of one call: the directory, and the sources of the new wheels."""

    def __init__(self, directory: Path, target: Target, torch_index_url: str) -> None:
        self.directory, self.target, self.torch_index_url = directory, target, torch_index_url
        manifest = directory / MANIFEST
        self.before = read_record(manifest, Wheelhouse) if manifest.exists() else Wheelhouse(made_for=[], wheels=[])
        self.sources = {wheel.file: wheel.source for wheel in self.before.wheels}
        self.known: dict[tuple[str, int], Wheel] = {}

    def fill(self, text: str) -> tuple[Wheelhouse, int, list[str]]:
        """Return the new manifest, how many wheels were added, and the files that nothing needs.

        Raises InputError (an unusable line or wheel) and SetupError (pip failed).
        """
        requirements = parse_requirements(text)
        ours = set(self.sources)
        for _ in range(MAX_ROUNDS):
            wheels = self._scan()
            choice = choose(requirements, wheels, self.target)
            if not choice.missing:
                break
            print(f"{len(wheels)} wheels exist, {len(choice.missing)} to download", file=sys.stderr)
            self._bring(choice.missing)
        else:
            raise SetupError(
                f"There is still no wheel of {choice.missing[0]} after {MAX_ROUNDS} rounds: change its pin."
            )
        require_checksums(self.directory, text, choice)
        choices = {self.target: choice}
        for other in self.before.made_for:
            again = choose(requirements, wheels, other)
            # With other pins it is no longer complete for that target.
            choices |= {} if again.missing or other == self.target else {other: again}
        return self._finish(choices, len(set(self.sources) - ours))

    def _finish(self, choices: dict[Target, Choice], brought: int) -> tuple[Wheelhouse, int, list[str]]:
        needed = {wheel.file: wheel for choice in choices.values() for wheel in choice.wheels}
        for path in self.directory.glob("*.whl"):
            if path.name not in needed and self.sources.get(path.name, GIVEN) != GIVEN:
                path.unlink()
        made_for = sorted(choices, key=lambda target: (int(target.python[2:]), target.platform))
        house = Wheelhouse(made_for=made_for, wheels=[needed[file] for file in sorted(needed)])
        write_record(self.directory / MANIFEST, house)
        left = sorted(path.name for path in self.directory.glob("*.whl") if path.name not in needed)
        return house, brought, left

    def _scan(self) -> list[Wheel]:
        found = []
        for path in sorted(self.directory.glob("*.whl")):
            key = (path.name, path.stat().st_mtime_ns)
            if key not in self.known:
                self.known[key] = read_wheel(path, self.sources.get(path.name, GIVEN))
            found.append(self.known[key])
        return found

    def _bring(self, missing: Sequence[Missing]) -> None:
        torch = [one.requirement for one in missing if self.torch_index_url and one.name == "torch"]
        rest = [one.requirement for one in missing if one.requirement not in torch]
        with tempfile.TemporaryDirectory(prefix=".part-", dir=self.directory) as place:
            if torch:
                # Only from that index, as in the role: later downloads find torch here and use no other.
                self._download(Path(place), torch, TORCH_INDEX, "--index-url", self.torch_index_url)
            if rest:
                self._download(Path(place), rest, INDEX)

    def _download(self, place: Path, requirements: list[str], source: str, *options: str) -> None:
        python = self.target.python.replace(".", "")
        words = ["--no-deps", "--prefer-binary", "--dest", str(place), "--python-version", self.target.python]
        words += ["--implementation", "cp", "--abi", f"cp{python}", "--abi", "abi3", "--abi", "none"]
        words += [word for platform in self.target.platforms() for word in ("--platform", platform)]
        remedy = f"is there such a version for {self.target}, and can pip reach an index that has it?"
        _pip("download", *words, *options, *requirements, remedy=remedy)
        for path in sorted(place.iterdir()):
            if path.suffix == ".whl":
                self._adopt(path, source)
            else:
                self._build(path, source)

    def _build(self, archive: Path, source: str) -> None:
        """Build the wheel of a package that is only published as source."""
        with tempfile.TemporaryDirectory(prefix=".part-", dir=self.directory) as place:
            _pip("wheel", "--no-deps", "--wheel-dir", place, str(archive), remedy="build it by hand, and put it there.")
            (wheel,) = Path(place).glob("*.whl")
            made = read_wheel(wheel, "")
            if not choose(parse_requirements(f"{made.name}=={made.version}"), [made], self.target).wheels:
                raise SetupError(
                    f"{archive.name} is only published as source, and builds {wheel.name}, which is not for "
                    f"{self.target}: build it on a machine of that kind (pip wheel) and put it into {self.directory}."
                )
            self._adopt(wheel, f"built here from {archive.name} of the {source}, SHA-256 {file_sha256(archive)}")
        archive.unlink()

    def _adopt(self, path: Path, source: str) -> None:
        path.replace(self.directory / path.name)
        self.sources[path.name] = source


def _pip(command: str, *words: str, remedy: str) -> None:
    """Run pip with its usual configuration; raise SetupError with what it said, and `remedy`."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    # Downloads and their sizes are shown as they happen.
    done = subprocess.run(
        [*PIP, command, "--progress-bar", "off", *words],
        stdout=STDERR,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        # Only its last line; the one before may list a hundred versions.
        reported = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise SetupError(f"pip {command} failed: {' '.join(reported[-1:]).removeprefix('ERROR: ')[:500]}: {remedy}")
