"""Run pip in an environment on the node, report its progress, and explain its failures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.environment_marks import WHEELS, InstallError

FULL = "The disk is full: make room, or set {settings}_dir (and TMPDIR) to a larger disk."
# How many lines at the end of pip's output are kept.
MOST_LINES = 5000
# Settings with which pip installs elsewhere, as on some clusters. An option overrides `user` in pip.conf; for the
# others there is none that leaves an environment its own layout (see `require_here`).
ELSEWHERE = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN")
IN_PIP_CONF = re.compile(r"(?:global|install)\.(target|prefix|root|dry-run)='(?!(?:0|no|off|false|)'$)")
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
# Less than any package needs, in bytes.
NOTHING_LEFT = 256 * 2**10


def is_full(*places: Path) -> bool:
    """Return whether the disk of one of the places is almost full."""
    try:
        return any(shutil.disk_usage(place).free < NOTHING_LEFT for place in places)
    except OSError:
        return False


def run(
    command: list[str], timeout_s: int, settings: str, *, wheelhouse: bool = False, progress: Progress | None = None
) -> str:
    """Run a command and return its output; raise InstallError with a sentence that names the `settings` to change.

    With a `wheelhouse`, pip's configuration on the node is ignored, since it could name other sources.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    environment = {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if wheelhouse:
        environment = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
    except OSError as error:
        raise InstallError(f"{command[0]} does not start: {error.strerror}.") from None
    late = threading.Timer(timeout_s, process.kill)
    late.start()
    said: deque[str] = deque(maxlen=MOST_LINES)
    with process:
        for line in process.stdout or ():
            said.append(line)
            if progress:
                progress.hear(line)
    expired = not late.is_alive()
    late.cancel()
    if expired:
        raise InstallError(
            f"{' '.join(command[:4])} did not end within {settings}_timeout_s = {timeout_s} s: is the package index "
            "slow or unreachable?"
        )
    if process.returncode < 0:
        raise InstallError(
            f"{' '.join(command[:4])} was killed (signal {-process.returncode}): did the node run out of memory? See "
            "dmesg there; then run again."
        )
    if process.returncode != 0:
        raise InstallError(sentence("".join(said), settings, wheelhouse=wheelhouse))
    return "".join(said)


class Progress:
    """Reports pip's progress in a file that the controller reads (plugins/shared/install_progress.py)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packages: set[str] = set()
        self._bytes = 0.0

    def hear(self, line: str) -> None:
        """Take in a line of pip's output."""
        if found := re.match(
            r"\s*(Downloading|Using cached|Processing) (?:\S*/)?(\S+\.whl|\S+\.tar\.gz)(?=\s|$)(.*)", line
        ):
            file, size = found[2], re.search(r"\(([\d.]+) ([kMG]?B)\)", found[3])
            if file in self._packages:
                return
            self._packages.add(file)
            self._bytes += float(size[1]) * UNITS[size[2]] if size else 0
            what = " ".join(file.split("-")[:2])
            self.show(f"{found[1].lower()} {what}{' ' + size[0] if size else ''}; {self._so_far}")
        elif found := re.match(r"\s*Collecting (\S+)", line):
            self.show(f"looking for {found[1][:40]}; {self._so_far}")
        elif found := re.match(r"\s*Installing collected packages: (.*)", line):
            self.show(f"unpacking {len(found[1].split(','))} packages, {self._size} of wheels")

    @property
    def _so_far(self) -> str:
        count = len(self._packages)
        return f"{count} package{'' if count == 1 else 's'}, {self._size} so far"

    @property
    def _size(self) -> str:
        return f"{self._bytes / 1e9:.1f} GB" if self._bytes >= 1e9 else f"{self._bytes / 1e6:.0f} MB"

    def show(self, words: str) -> None:
        """Write the progress; a failure to write it is ignored."""
        beside = self._path.with_name(f"{self._path.name}.part")
        with suppress(OSError):
            beside.write_text(f"{words}\n")
            beside.replace(self._path)

    def end(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def sentence(output: str, settings: str, *, wheelhouse: bool = False) -> str:
    """Return one sentence for the failure of pip or venv, with what to do."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return FULL.format(settings=settings)
    if match := re.search(r"from (\S+) \(from.*?\n\s+Expected sha256", output):
        wheel = match[1].rpartition("/")[2]
        if not wheelhouse:
            return f"The package index offers a {wheel} whose checksum is not the one in {settings}_requirements."
        return f"{wheel} is not the wheel that wheelhouse.json lists: copy the wheelhouse again, or make a new one."
    if "ensurepip is not available" in output or "No module named ensurepip" in output:
        return "This Python cannot make virtual environments: install its venv package (Debian: python3-venv)."
    match = re.search(r"No matching distribution found for (\S+)", output)
    if match and wheelhouse:
        return f"The wheel of {match[1]} is not among those that were sent: run again."
    if match:
        where = f"{settings}_requirements" + (f", {settings}_torch_index_url" if settings == "python_env" else "")
        return (
            f"The package index has no {match[1]} for this Python and platform: check {where} and the node's pip "
            "configuration."
        )
    if match := re.search(r"(Temporary failure in name resolution|Connection refused|Network is unreachable|"
                          r"Failed to establish a new connection|timed out)", output):  # fmt: skip
        return f"The package index is unreachable ({match[1]}): check the node's network and pip configuration."
    reported = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in reported if "error" in line.lower()] or reported
    return " ".join((errors or ["no reason given"])[-1].split())[:500]


def require_here(python: Path, timeout_s: int, settings: str) -> None:
    """Raise InstallError if a pip.conf makes this pip install elsewhere than into its own environment, or nothing."""
    listed = run([str(python), "-m", "pip", "config", "list"], timeout_s, settings)
    if found := {match[1] for line in listed.splitlines() if (match := IN_PIP_CONF.match(line))}:
        raise InstallError(
            f"The node's pip configuration sets {' and '.join(sorted(found))}, so that nothing would be installed into "
            f"{python.parents[1]}: remove it ({python} -m pip config debug shows the files)."
        )


def requirements_without_torch(text: str) -> tuple[list[str], str]:
    """Return the torch requirement (a list of at most one) and the rest of the text."""
    lines = text.splitlines()
    torch = [line for line in lines if re.match(r"torch\s*([=<>!~;@]|$)", line)]
    return torch, "\n".join(line for line in lines if line not in torch) + "\n"


def install_from_index(python: Path, requirements: Path, parameters: dict[str, Any], progress: Progress | None) -> None:
    """Install with the node's own pip configuration; torch comes from its own index, if one is set."""
    timeout_s, settings = parameters["timeout_s"], parameters["settings"]
    pip = [str(python), "-m", "pip", "install", "--no-color", "--progress-bar", "off", "--no-user"]
    require_here(python, timeout_s, settings)
    torch, rest = requirements_without_torch(parameters["requirements"])
    # A lock has checksums for everything, except for a torch from an index of builds.
    locked = "--hash=" in rest
    apart = bool(torch) and locked and not torch[0].endswith("\\")
    if parameters["torch_index_url"] or apart:
        # Only from that index, and first, so that the other packages find this torch and install no other build.
        index = ["--index-url", parameters["torch_index_url"]] if parameters["torch_index_url"] else []
        run([*pip, *index, *torch], timeout_s, settings, progress=progress)
    if apart:
        requirements.write_text(rest)
    words = ["--no-deps"] if locked else []
    run([*pip, *words, "--requirement", str(requirements)], timeout_s, settings, progress=progress)
    (python.parents[1] / WHEELS).unlink(missing_ok=True)
    if parameters["package"]:
        name_build(python.parents[1], parameters["package"])


def name_build(directory: Path, package: str) -> None:
    """Make a build for other hardware (NAME-cpu) known under the package's own name too, as NAME of version 1.2+cpu.

    The package looks up its version and hardware under that name.
    """
    for packages in directory.glob("lib/python3*/site-packages"):
        if any(packages.glob(f"{package}-*.dist-info")):
            continue
        for info in packages.glob(f"{package}_*.dist-info"):
            if f"{package}/__init__.py" not in (info / "RECORD").read_text():
                continue
            hardware, _, version = info.name[len(package) + 1 : -len(".dist-info")].partition("-")
            named = packages / f"{package}-{version}+{hardware}.dist-info"
            named.mkdir()
            (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}+{hardware}\n")


def install_from_wheels(
    directory: Path, have: list[str], parameters: dict[str, Any], progress: Progress | None
) -> None:
    """Install locked packages that are missing, only from the wheels, and verify each wheel's hash."""
    locked, reported = parameters["locked"], (parameters["timeout_s"], parameters["settings"])
    pip = [str(directory / "bin" / "python"), "-m", "pip"]
    gone = {line.split("==")[0] for line in have} - {line.split("==")[0] for line in locked}
    if gone:
        run([*pip, "uninstall", "--quiet", "--yes", *sorted(gone)], *reported, wheelhouse=True)
    words = ["install", "--no-color", "--progress-bar", "off", "--no-index", "--no-deps", "--force-reinstall"]
    if new := [line for line in locked if line not in have]:
        listing = directory / "wheels.txt"
        listing.write_text("\n".join(new) + "\n")
        offered = ["--find-links", parameters["wheels_dir"], "--only-binary", ":all:", "--require-hashes"]
        run([*pip, *words, *offered, "--requirement", str(listing)], *reported, wheelhouse=True, progress=progress)
    # The controller chose the wheels; pip checks here that none is missing.
    run([*pip, "check"], *reported, wheelhouse=True)
    (directory / WHEELS).write_text("\n".join(locked) + "\n")
