"""Module `python_env_install`: make or update a virtual environment on the node, for `python_env` and the engines."""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: python_env_install
short_description: Make or update a virtual environment
description:
  - Makes a virtual environment with pinned packages, and in its directory one for each wheel of our own that is wanted.
  - Marks each with a fingerprint of what it holds, by which it is found again. An environment with another fingerprint
    is left as it is, and the new one made beside it; of many, those that were not used for the longest are removed.
  - Holds a lock, so that nodes with a shared home directory do not install into it at the same time.
author: [The llm-datacenter-benchmark authors]
options:
  dir: {description: "The environment's directory; others lie beside it.", type: str, required: true}
  fingerprint: {description: What the marker will say., type: str, required: true}
  python: {description: The interpreter to make it from., type: str, required: true}
  existing:
    description: Whether O(python) is that of an environment that exists. Then only our own code is put into O(dir).
    type: bool
    default: false
  requirements: {description: Text of the requirements file., type: str, default: ""}
  torch_index_url: {description: Package index of torch builds; empty for the usual one., type: str, default: ""}
  package: {description: The engine's package; a build of it may have a name of its own., type: str, default: ""}
  wheel: {description: The benchmark's wheel on the node; empty for an environment without it., type: str, default: ""}
  code_sha256: {description: The hash of the code in the wheel., type: str, default: ""}
  settings: {description: What the names of the settings begin with., type: str, default: python_env}
  wheels_dir:
    description: Directory on the node with the packages' wheels, removed afterwards; empty for a package index.
    type: str
    default: ""
  locked:
    description: With O(wheels_dir), every package as a line with version and hash.
    type: list
    elements: str
    default: []
  timeout_s: {description: Seconds until one installation counts as hung., type: int, required: true}
"""

MARKER = ".llm-benchmark"
# What becomes the marker once the environment is complete.
BEGUN = ".llm-benchmark.part"
# Of a fingerprint, in the names of directories.
SHORT = 12
# So many environments, and so many wheels of our own in each, are kept: others are removed, unless a run uses them or
# they were wanted within the hour, by a run that is about to start.
KEPT, CODES_KEPT, WANTED_S = 3, 10, 3600
# Where a file system has no locks, nobody knows whether a run uses one that was used within its longest time limit.
USED_S = 8 * 86400
# What was installed from a wheelhouse: the lines of `locked`.
WHEELS = ".llm-benchmark-wheels"


FULL = "The disk is full: make room, or set {settings}_dir (and TMPDIR) to a larger disk."
# Of what pip says, the end is kept.
MOST_LINES = 5000
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
# Less than any package takes, in bytes.
NOTHING_LEFT = 256 * 2**10


# Where a file system has no locks, a file stands for one. How often its holder shows that it is there, and after how
# long without that the file is taken for one whose holder is gone, in seconds.
SHOW_S, GONE_S = 5, 60


class InstallError(Exception):
    """Why the environment could not be made, in a sentence."""


def installed_sum(directory: Path) -> str:
    """Return a sum over names and versions of what is installed; as roles/python_env/files/state.sh makes it."""
    infos = sorted(directory.glob("lib/python3*/site-packages/*.dist-info"), key=os.fsencode)
    names = [os.fsencode(path.name) for path in infos]
    return hashlib.sha256(b"".join(name + b"\n" for name in names)).hexdigest()


def is_made(directory: Path, fingerprint: str) -> bool:
    """Return whether the environment was made with this fingerprint and has not been changed since."""
    try:
        lines = (directory / MARKER).read_text().split()
    except OSError:
        return False
    return lines == [fingerprint, installed_sum(directory)]


def installed_wheels(directory: Path) -> list[str]:
    """Return what was installed from a wheelhouse; nothing where the environment has been changed since."""
    try:
        if (directory / MARKER).read_text().split()[1] != installed_sum(directory):
            return []
        return (directory / WHEELS).read_text().splitlines()
    except (OSError, IndexError):
        return []


def is_full(*places: Path) -> bool:
    """Return whether a disk that something was to be written to has next to nothing left."""
    try:
        return any(shutil.disk_usage(place).free < NOTHING_LEFT for place in places)
    except OSError:
        return False


def run(
    command: list[str], timeout_s: int, settings: str, *, wheelhouse: bool = False, progress: Progress | None = None
) -> None:
    """Run a command; raise InstallError with a sentence about its failure, which names the `settings` to change.

    For a `wheelhouse`, nothing of pip's configuration on the node is honoured: it could name other sources.
    """
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
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
            "slow or out of reach?"
        )
    if process.returncode < 0:
        raise InstallError(
            f"{' '.join(command[:4])} was killed (signal {-process.returncode}): did the node run out of memory? See "
            "dmesg there; then run again."
        )
    if process.returncode != 0:
        raise InstallError(sentence("".join(said), settings, wheelhouse=wheelhouse))


class Progress:
    """How far pip is, in a file that the controller reads (see `FOLLOW` in plugins/shared/environment_action.py)."""

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
        """Say how far it is; that this cannot be written is no failure."""
        beside = self._path.with_name(f"{self._path.name}.part")
        with suppress(OSError):
            beside.write_text(f"{words}\n")
            beside.replace(self._path)

    def end(self) -> None:
        """Leave nothing."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def sentence(output: str, settings: str, *, wheelhouse: bool = False) -> str:
    """Return what pip or venv said, in one sentence with what to do."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return FULL.format(settings=settings)
    if match := re.search(r"from (\S+) \(from.*?\n\s+Expected sha256", output):
        wheel = match[1].rpartition("/")[2]
        if not wheelhouse:
            return f"The package index gives another {wheel} than {settings}_requirements has the checksum of."
        return f"{wheel} is not the wheel that wheelhouse.json lists: copy the wheelhouse again, or make it anew."
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
        return f"The package index is out of reach ({match[1]}): check the node's network and pip configuration."
    reported = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in reported if "error" in line.lower()] or reported
    return " ".join((errors or ["no word of why"])[-1].split())[:500]


def requirements_without_torch(text: str) -> tuple[list[str], str]:
    """Return the torch requirement (a list of none or one) and the rest of the text."""
    lines = text.splitlines()
    torch = [line for line in lines if re.match(r"torch\s*([=<>!~;@]|$)", line)]
    return torch, "\n".join(line for line in lines if line not in torch) + "\n"


def kept(base: Path) -> list[Path]:
    """Return the directories of the environments that lie beside each other, as roles/python_env/files look at them."""
    return [base, *sorted(base.parent.glob(f"{base.name}-{'[0-9a-f]' * SHORT}"))]


def find(base: Path, fingerprint: str) -> Path | None:
    """Return where an environment with this fingerprint is, whether it has been changed since or not."""
    return next((one for one in kept(base) if marked(one) == fingerprint), None)


def marked(directory: Path) -> str:
    """Return the fingerprint that a directory is marked with; empty: it was never completed, or is none of ours."""
    try:
        return (directory / MARKER).read_text().split()[0]
    except (OSError, IndexError):
        return ""


def place_for(base: Path, fingerprint: str) -> Path:
    """Return where an environment is to be made: where one was begun, or beside those that others may use."""
    place = find(base, fingerprint) or (base.with_name(f"{base.name}-{fingerprint[:SHORT]}") if marked(base) else base)
    if in_use(place):
        raise InstallError(f"A run uses {place}, which was changed by hand since it was made: wait for the run's end.")
    return place


def in_use(directory: Path) -> bool:
    """Return whether a run uses the environment: it holds the marks of what it uses, shared."""
    for mark in (directory / MARKER, *directory.glob(f"code/*/{MARKER}")):
        try:
            with mark.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            if time.time() - mark.stat().st_mtime < USED_S:
                return True
    return False


def prune(directories: list[Path], keep: int) -> None:
    """Remove what was begun and not completed, and all but those that were wanted last; none that is in use."""
    made = [one for one in directories if marked(one)]
    made.sort(key=lambda one: (one / MARKER).stat().st_mtime, reverse=True)
    old = [one for one in made[keep:] if time.time() - (one / MARKER).stat().st_mtime > WANTED_S and not in_use(one)]
    for one in [*old, *(one for one in directories if one.is_dir() and not marked(one))]:
        # First: half removed, it is not to be taken for made.
        (one / MARKER).unlink(missing_ok=True)
        shutil.rmtree(one, ignore_errors=True)


def install(directory: Path, parameters: dict[str, Any], progress: Progress | None = None) -> None:
    """Make or update the environment; the marker is written last, so that a half-made one is never taken for made."""
    interpreter = str(Path(parameters["python"]).expanduser())
    python = directory / "bin" / "python"
    have = installed_wheels(directory)
    # What did not come from a wheelhouse as a whole could hold anything: with one, such an environment is made anew.
    anew = not works(python, interpreter) or bool(parameters["wheels_dir"] and not have)
    refuse_others(directory, anew, parameters["settings"])
    begin(directory)
    (directory / MARKER).unlink(missing_ok=True)
    if anew:
        shutil.rmtree(directory, ignore_errors=True)
        begin(directory)
        have = begin_from_another(directory, interpreter, parameters) if parameters["wheels_dir"] else []
        if not have:
            begin(directory)
            if progress:
                progress.show("making the virtual environment")
            run([interpreter, "-m", "venv", str(directory)], parameters["timeout_s"], parameters["settings"])
    requirements = directory / "requirements.txt"
    requirements.write_text(parameters["requirements"])
    if parameters["wheels_dir"]:
        install_from_wheels(directory, have, parameters, progress)
    else:
        install_from_index(python, requirements, parameters, progress)
    mark(directory, parameters["fingerprint"])


def refuse_others(directory: Path, anew: bool, settings: str) -> None:
    """Raise InstallError where a directory was neither made nor begun here, and would be removed, or is no environment.

    It may be somebody's home directory, or an environment that another program made.
    """
    ours = (directory / MARKER).exists() or (directory / BEGUN).exists()
    if ours or not directory.is_dir() or not any(directory.iterdir()):
        return
    if anew or not (directory / "pyvenv.cfg").exists():
        raise InstallError(
            f"{directory} exists, and was not made by the benchmark: it is left alone. Set {settings}_dir to a "
            f"directory of its own, remove it if nobody needs it, or set {settings}_manage: false to measure with it."
        )


def begin(directory: Path) -> None:
    """Make the directory of an environment and mark it as begun here."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / BEGUN).touch()


def mark(directory: Path, fingerprint: str) -> None:
    """Mark an environment as complete."""
    beside = directory / BEGUN
    beside.write_text(f"{fingerprint}\n{installed_sum(directory)}\n")
    beside.replace(directory / MARKER)


def begin_from_another(directory: Path, interpreter: str, parameters: dict[str, Any]) -> list[str]:
    """Fill a new environment with what another has, and return which wheels these are; nothing where none is fit.

    Its files are the other's own, by further names: pip writes a file anew, and never changes one.
    """
    base = Path(parameters["dir"]).expanduser()
    for other in kept(base):
        have = [] if other == directory else installed_wheels(other)
        if not have or not works(other / "bin" / "python", interpreter):
            continue
        try:
            unmarked = shutil.ignore_patterns(MARKER + "*")
            shutil.copytree(other, directory, symlinks=True, copy_function=os.link, ignore=unmarked, dirs_exist_ok=True)
        except (OSError, shutil.Error):  # no further names on this file system
            shutil.rmtree(directory, ignore_errors=True)
            return []
        shutil.rmtree(directory / "code", ignore_errors=True)
        for path in (directory / "pyvenv.cfg", *(directory / "bin").iterdir()):
            if path.is_file() and not path.is_symlink() and os.fsencode(other) in (content := path.read_bytes()):
                mode = path.stat().st_mode
                path.unlink()
                path.write_bytes(content.replace(os.fsencode(other), os.fsencode(directory)))
                path.chmod(mode)
        return have
    return []


def install_code(directory: Path, code: Path, parameters: dict[str, Any]) -> None:
    """Make the environment of one wheel of our own: it holds that, and finds all packages in the one around it."""
    shutil.rmtree(code, ignore_errors=True)
    python, reported = str(directory / "bin" / "python"), (parameters["timeout_s"], parameters["settings"])
    run([python, "-m", "venv", "--without-pip", str(code)], *reported)
    words = ["install", "--quiet", "--no-color", "--no-index", "--no-deps", "--ignore-installed", "--prefix", str(code)]
    run([python, "-m", "pip", *words, parameters["wheel"]], *reported, wheelhouse=True)
    (packages,) = directory.glob("lib/python3*/site-packages")
    own = code / packages.relative_to(directory)
    (own / "packages.pth").write_text(f"{os.path.relpath(packages, own)}\n")
    mark(code, parameters["code_sha256"])


def stand_for_existing(directory: Path, parameters: dict[str, Any]) -> None:
    """Make the directory that stands for an environment which exists: its own code lies in it, and nothing else."""
    if directory.exists() and any(one.name not in (MARKER, "bin", "code") for one in directory.iterdir()):
        raise InstallError(f"{directory} holds files that are not the benchmark's: set python_env_code_dir to another.")
    write_python(directory, parameters["python"], "")
    mark(directory, parameters["fingerprint"])


def unpack_code(directory: Path, code: Path, parameters: dict[str, Any]) -> None:
    """Unpack one wheel of our own, which is pure Python, and compile it; its Python finds it before all packages."""
    shutil.rmtree(code, ignore_errors=True)
    packages = code / "lib" / "python3" / "site-packages"
    with ZipFile(parameters["wheel"]) as wheel:
        wheel.extractall(packages)
    # With the Python that will run it: a module runs with that.
    compileall.compile_dir(packages, quiet=2)
    write_python(code, parameters["python"], str(packages))
    mark(code, parameters["code_sha256"])


def write_python(directory: Path, python: str, packages: str) -> None:
    """Write a program that stands for the existing environment's Python; it leaves no compiled files in that."""
    program = directory / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    path = f'PYTHONPATH={shlex.quote(packages)}"${{PYTHONPATH:+:$PYTHONPATH}}" ' if packages else ""
    gone = "There is no $python any more: provide the environment again, or set python_env_dir to another."
    program.write_text(
        "#!/bin/sh\n"
        f"python={shlex.quote(str(Path(python).expanduser()))}\n"
        f'[ -x "$python" ] || {{ echo "{gone}" >&2; exit 3; }}\n'
        f'{path}PYTHONDONTWRITEBYTECODE=1 exec "$python" "$@"\n'
    )
    program.chmod(0o755)


def install_from_index(python: Path, requirements: Path, parameters: dict[str, Any], progress: Progress | None) -> None:
    """Install with the node's own pip configuration, torch from an index of its own where there is one."""
    timeout_s, settings = parameters["timeout_s"], parameters["settings"]
    pip = [str(python), "-m", "pip", "install", "--no-color", "--progress-bar", "off"]
    torch, rest = requirements_without_torch(parameters["requirements"])
    # A lock has everything with its checksum, but for a torch that comes from an index of builds.
    locked = "--hash=" in rest
    apart = bool(torch) and locked and not torch[0].endswith("\\")
    if parameters["torch_index_url"] or apart:
        # From that index alone, and first: what comes after finds torch there and takes no other build.
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
    """Let a build for other hardware (NAME-cpu) be found by the package's own name too, as NAME of version 1.2+cpu.

    That is how the package's makers call it, and what it asks itself for: its version, and which hardware it is for.
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
    """Install what is locked and not there yet, each wheel against its hash, and from nowhere else."""
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
    # The wheels were chosen on the controller: that nothing is lacking is asked of pip here.
    run([*pip, "check"], *reported, wheelhouse=True)
    (directory / WHEELS).write_text("\n".join(locked) + "\n")


def works(python: Path, interpreter: str) -> bool:
    """Return whether the environment's Python starts, has pip, and is of the interpreter's version."""
    ask = ["-c", "import pip, sys; print(sys.version)"]
    try:
        inside = subprocess.run([str(python), *ask], capture_output=True, check=True).stdout
        outside = subprocess.run([interpreter, "-c", "import sys; print(sys.version)"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return inside == outside.stdout


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the lock, also against other nodes with the same home directory, and on a file system without locks."""
    with lock.open("w") as file, ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            held.enter_context(only_maker(lock.with_name(lock.name + ".held")))
        yield


@contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Make a file, once it is not there, and remove it afterwards; in between show that somebody is here."""
    seen: tuple[int, int] | None = None
    since = time.monotonic()
    while True:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        with suppress(FileNotFoundError):
            # Clocks of nodes differ: what counts is whether its time changes while this one waits.
            if (now := (path.stat().st_ino, path.stat().st_mtime_ns)) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > GONE_S:
                path.unlink()
                continue
        time.sleep(SHOW_S / 5)
    over = threading.Event()

    def show() -> None:
        while not over.wait(SHOW_S):
            with suppress(OSError):
                os.utime(path)

    shows = threading.Thread(target=show, daemon=True)
    shows.start()
    try:
        yield
    finally:
        over.set()
        shows.join()
        path.unlink(missing_ok=True)


def end_with_reader() -> None:
    """From now on, end with pip and all once nobody reads what this prints: the connection is gone."""

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(1, 0)  # errors and hang-ups are reported without being asked for
        hung_up.poll()
        os.killpg(0, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def provide(base: Path, parameters: dict[str, Any], progress: Progress | None = None) -> bool:
    """Make what is not there yet, remove what was not wanted for long; return whether something was made."""
    # Another node with the same home may have made it while this one waited.
    place = find(base, parameters["fingerprint"])
    if changed := place is None or not is_made(place, parameters["fingerprint"]):
        place = place_for(base, parameters["fingerprint"])
        if parameters["existing"]:
            stand_for_existing(place, parameters)
        else:
            install(place, parameters, progress)
    os.utime(place / MARKER)
    if sha256 := parameters["code_sha256"]:
        code = place / "code" / sha256[:SHORT]
        if not is_made(code, sha256):
            (unpack_code if parameters["existing"] else install_code)(place, code, parameters)
            changed = True
        os.utime(code / MARKER)
        prune(sorted(place.glob("code/*")), CODES_KEPT)
    # The one that the settings name is its owner's where it has no mark.
    prune([one for one in kept(base) if one != base or marked(base)], KEPT)
    return changed


def main() -> None:
    """Read the arguments, install under the lock, report."""
    module = AnsibleModule(
        argument_spec={
            "dir": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
            "existing": {"type": "bool", "default": False},
            "requirements": {"type": "str", "default": ""},
            "torch_index_url": {"type": "str", "default": ""},
            "package": {"type": "str", "default": ""},
            "wheel": {"type": "str", "default": ""},
            "code_sha256": {"type": "str", "default": ""},
            "settings": {"type": "str", "default": "python_env"},
            "wheels_dir": {"type": "str", "default": ""},
            "locked": {"type": "list", "elements": "str", "default": []},
            "timeout_s": {"type": "int", "required": True},
        }
    )
    end_with_reader()
    directory = Path(module.params["dir"]).expanduser()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with alone(directory.with_name(f".{directory.name}.lock")):
            progress = Progress(directory.with_name(f".{directory.name}.progress"))
            try:
                changed = provide(directory, module.params, progress)
            finally:
                progress.end()
        if module.params["wheels_dir"]:
            # Only now: after a failure they need not be sent again.
            shutil.rmtree(module.params["wheels_dir"], ignore_errors=True)
            with suppress(OSError):  # another node with the same home directory has its own in there
                Path(module.params["wheels_dir"]).parent.rmdir()
    except InstallError as error:
        # Not all say it themselves: venv tells only that what it called has failed.
        full = is_full(directory.parent, Path(tempfile.gettempdir()))
        module.fail_json(msg=FULL.format(settings=module.params["settings"]) if full else str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or directory} cannot be written: {error.strerror}. The environment is not as this "
            "checkout wants it: have its owner renew it, or set "
            f"{module.params['settings']}_dir to a directory of this user's own."
        )
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
