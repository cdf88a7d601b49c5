"""Module `python_env_install`: make or update a virtual environment on the node, for `python_env` and engines."""

from __future__ import annotations

import compileall
import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.environment_lock import alone
from ansible.module_utils.environment_marks import (
    CODES_KEPT,
    KEPT,
    MARKER,
    SHORT,
    InstallError,
    begin,
    find,
    installed_wheels,
    is_made,
    kept,
    mark,
    marked,
    place_for,
    prune,
    refuse_others,
)
from ansible.module_utils.environment_pip import FULL, Progress, install_from_index, install_from_wheels, is_full, run

DOCUMENTATION = r"""
module: python_env_install
short_description: Make or update a virtual environment
description:
  - Makes a virtual environment with pinned packages, and inside it one for each requested version of our own wheel.
  - Marks each with a fingerprint, by which it is found again. An environment with another fingerprint is left as it is,
    and the new one is made beside it; if there are many, the longest unused are removed.
  - Holds a lock, so that nodes with a shared home directory do not install into it at the same time.
author: [The llm-datacenter-benchmark authors]
options:
  dir: {description: "The environment's directory; others are beside it.", type: str, required: true}
  fingerprint: {description: The fingerprint for the marker., type: str, required: true}
  python: {description: The interpreter to make it from., type: str, required: true}
  existing:
    description: Whether O(python) belongs to an existing environment. If so, only our own code is put into O(dir).
    type: bool
    default: false
  requirements: {description: Text of the requirements file., type: str, default: ""}
  torch_index_url: {description: Package index of torch builds; empty for the usual one., type: str, default: ""}
  package: {description: The engine's package; a build of it may have another name., type: str, default: ""}
  wheel: {description: The benchmark's wheel on the node; empty for an environment without it., type: str, default: ""}
  code_sha256: {description: The hash of the code in the wheel., type: str, default: ""}
  settings: {description: The prefix of the settings' names., type: str, default: python_env}
  wheels_dir:
    description: Directory on the node with the packages' wheels, removed afterwards; empty for a package index.
    type: str
    default: ""
  locked:
    description: With O(wheels_dir), a line with version and hash for every package.
    type: list
    elements: str
    default: []
  timeout_s: {description: Seconds until one installation counts as hung., type: int, required: true}
"""


def install(directory: Path, parameters: dict[str, Any], progress: Progress | None = None) -> None:
    """Make or update the environment; the marker is written last, so that a half-made one never looks complete."""
    interpreter = str(Path(parameters["python"]).expanduser())
    python = directory / "bin" / "python"
    have = installed_wheels(directory)
    # With a wheelhouse, an environment that did not come entirely from one is made anew.
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
                progress.show("creating the virtual environment")
            run([interpreter, "-m", "venv", str(directory)], parameters["timeout_s"], parameters["settings"])
    requirements = directory / "requirements.txt"
    requirements.write_text(parameters["requirements"])
    if parameters["wheels_dir"]:
        install_from_wheels(directory, have, parameters, progress)
    else:
        install_from_index(python, requirements, parameters, progress)
    mark(directory, parameters["fingerprint"])


def begin_from_another(directory: Path, interpreter: str, parameters: dict[str, Any]) -> list[str]:
    """Fill a new environment from another one, and return the wheels in it; nothing if none is suitable.

    The files are hard links, which is safe: pip replaces files and never changes them in place.
    """
    base = Path(parameters["dir"]).expanduser()
    for other in kept(base):
        have = [] if other == directory else installed_wheels(other)
        if not have or not works(other / "bin" / "python", interpreter):
            continue
        try:
            unmarked = shutil.ignore_patterns(MARKER + "*")
            shutil.copytree(other, directory, symlinks=True, copy_function=os.link, ignore=unmarked, dirs_exist_ok=True)
        except (OSError, shutil.Error):  # no hard links on this file system
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
    """Make the environment for one wheel of our own: it contains only that, and finds all packages in the outer one."""
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
    """Make the directory that represents an existing environment: it contains only our own code."""
    if directory.exists() and any(one.name not in (MARKER, "bin", "code") for one in directory.iterdir()):
        raise InstallError(f"{directory} has files that are not the benchmark's: set python_env_code_dir to another.")
    write_python(directory, parameters["python"], "")
    mark(directory, parameters["fingerprint"])


def unpack_code(directory: Path, code: Path, parameters: dict[str, Any]) -> None:
    """Unpack and compile one wheel of our own, which is pure Python; its Python finds it before all packages."""
    shutil.rmtree(code, ignore_errors=True)
    packages = code / "lib" / "python3" / "site-packages"
    with ZipFile(parameters["wheel"]) as wheel:
        wheel.extractall(packages)
    # This module runs with the same Python that will use the compiled files.
    compileall.compile_dir(packages, quiet=2)
    write_python(code, parameters["python"], str(packages))
    mark(code, parameters["code_sha256"])


def write_python(directory: Path, python: str, packages: str) -> None:
    """Write a program that runs the existing environment's Python without leaving compiled files there."""
    program = directory / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    path = f'PYTHONPATH={shlex.quote(packages)}"${{PYTHONPATH:+:$PYTHONPATH}}" ' if packages else ""
    gone = "$python no longer exists: provide the environment again, or set python_env_dir to another."
    program.write_text(
        "#!/bin/sh\n"
        f"python={shlex.quote(str(Path(python).expanduser()))}\n"
        f'[ -x "$python" ] || {{ echo "{gone}" >&2; exit 3; }}\n'
        f'{path}PYTHONDONTWRITEBYTECODE=1 exec "$python" "$@"\n'
    )
    program.chmod(0o755)
    if not os.access(program, os.X_OK):
        raise InstallError(f"Programs cannot be run in {directory} (noexec?): set python_env_code_dir to another.")


def works(python: Path, interpreter: str) -> bool:
    """Return whether the environment's Python starts, has pip, and has the interpreter's version."""
    ask = ["-c", "import pip, sys; print(sys.version)"]
    try:
        inside = subprocess.run([str(python), *ask], capture_output=True, check=True).stdout
        outside = subprocess.run([interpreter, "-c", "import sys; print(sys.version)"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return inside == outside.stdout


def end_with_reader() -> None:
    """From now on, end with pip and all other children once the connection that reads our output is gone."""

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(1, 0)  # errors and hang-ups are always reported
        hung_up.poll()
        os.killpg(0, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def provide(base: Path, parameters: dict[str, Any], progress: Progress | None = None) -> bool:
    """Make what is missing, remove what was unused for long; return whether something was made."""
    # Another node with the same home directory may have made it while this one waited.
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
    # Without a mark, the configured environment belongs to the user.
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
            # Only after success: after a failure they need not be sent again.
            shutil.rmtree(module.params["wheels_dir"], ignore_errors=True)
            with suppress(OSError):  # another node with the same home directory may have its wheels in there
                Path(module.params["wheels_dir"]).parent.rmdir()
    except InstallError as error:
        # venv does not report a full disk, only that a command failed.
        full = is_full(directory.parent, Path(tempfile.gettempdir()))
        module.fail_json(msg=FULL.format(settings=module.params["settings"]) if full else str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or directory} cannot be written: {error.strerror}. The environment does not match "
            "this checkout: ask its owner to provision it, or set "
            f"{module.params['settings']}_dir to a directory of this user's own."
        )
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
