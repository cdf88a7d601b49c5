"""Write an engine's lock (requirements-ENGINE.txt): everything that it needs, with versions and the wheels' SHA-256.

python -m tools.engine_lock ENGINE [VERSION] [--cpu]

Asks the package index through uv, which reads the wheels' metadata and downloads no wheel. Without a version the one
that is locked now is resolved anew, with what is the newest for it today.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomllib
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

from benchmark.cluster.packages.resolver import Target
from benchmark.provisioned import ENGINES
from benchmark.provisioned_engine import Lock, ProvisionedEngine

CHECKOUT = Path(__file__).resolve().parents[1]
UV = (sys.executable, "-m", "uv")
PROJECT = """[project]
name = "lock"
version = "0"
requires-python = ">={oldest},<{below}"
dependencies = ["{package}=={version}"]
[tool.uv]
environments = ["{environment}"]
override-dependencies = {without}
"""
HEAD = """# What benchmark_engine: {name} needs{cpu}, in an environment of its own: it pins its own torch.
# Made by python -m tools.engine_lock {name}{word}: {count} packages, up to {gb:.1f} GB of wheels,
# for Python {first} to {last} on {machine} with glibc {glibc} or newer. pip installs nothing else{torch}.
"""


def locked_version(lock: Lock, package: str) -> str:
    """Return the version of the engine that is locked now."""
    file = CHECKOUT / lock.file
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    match = re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
    if not match:
        raise SystemExit(f"{lock.file} locks no {package}: give the version.")
    return match[1]


def targets(lock: Lock) -> list[Target]:
    """Return the kinds of nodes that the lock is for, one for each Python."""
    platform = f"manylinux_{lock.glibc[0]}_{lock.glibc[1]}_{lock.machine}"
    return [Target(python=python, platform=platform) for python in lock.pythons]


def everywhere(lock: Lock) -> tuple[str, ...]:
    """Return what is said once in the head and dropped from every line: the wheels are for this anyway."""
    return ("sys_platform == 'linux'", f"platform_machine == '{lock.machine}'", "implementation_name == 'cpython'")


def resolve(lock: Lock, package: str, version: str) -> tuple[str, dict[str, Any]]:
    """Return what uv resolves, as requirements and as its lock. Ends where it does not."""
    project = PROJECT.format(
        oldest=lock.pythons[0],
        below=".".join(map(str, lock.below_python)),
        package=package,
        version=version,
        environment=" and ".join(everywhere(lock)),
        # So uv calls it that a package is not wanted, whoever asks for it.
        without=json.dumps([f"{name} ; sys_platform == 'none'" for name in lock.without]),
    )
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "pyproject.toml").write_text(project, encoding="utf-8")
        subprocess.run([*UV, "lock", "--quiet"], cwd=place, check=True)
        words = ["--frozen", "--no-emit-project", "--no-header", "--no-annotate", "--no-hashes"]
        command = [*UV, "export", "--quiet", *words]
        text = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
        return text, tomllib.loads((Path(place) / "uv.lock").read_text(encoding="utf-8"))


def render(engine: ProvisionedEngine, lock: Lock, requirements: str, resolved: dict[str, Any]) -> str:
    """Return the text of the lock. Ends where a package has no wheel for one of the Pythons that it is asked for."""
    packages = {(one["name"], one["version"]): one for one in resolved["package"]}
    sizes, lines = dict.fromkeys(lock.pythons, 0), []
    for line in requirements.splitlines():
        pin, _, marker = (part.strip() for part in line.partition(";"))
        name, version = pin.split("==")
        hashes = set()
        for target in targets(lock):
            if marker and not Marker(marker).evaluate(target.environment()):
                continue
            wheel = best(packages[name, version].get("wheels", []), target)
            if wheel is None:
                raise SystemExit(f"{pin} has no wheel for {target}: it would be built on the node.")
            hashes.add(f"--hash={wheel['hash']}")
            sizes[target.python] += wheel["size"]
        known = (*everywhere(lock), "platform_python_implementation != 'PyPy'")
        rest = " and ".join(part for part in marker.split(" and ") if part and part not in known)
        lines.append(" \\\n    ".join([f"{pin} ; {rest}" if rest else pin, *sorted(hashes)]))
    head = HEAD.format(
        name=engine.name,
        cpu="" if lock is engine.lock else " on nodes without a GPU",
        word="" if lock is engine.lock else " --cpu",
        torch=f"; {lock.torch} comes first, from an index of builds" if lock.torch else "",
        count=len({line.split("==")[0] for line in lines}),
        gb=max(sizes.values()) / 1e9,
        first=lock.pythons[0],
        last=lock.pythons[-1],
        machine=lock.machine,
        glibc=".".join(map(str, lock.glibc)),
    )
    return head + "\n".join([*([lock.torch] if lock.torch else []), *lines]) + "\n"


def best(wheels: Iterable[dict[str, Any]], target: Target) -> dict[str, Any] | None:
    """Return the wheel that pip takes on such a node; None where there is none."""
    tags, found = target.tags(), []
    for wheel in wheels:
        *_, own = parse_wheel_filename(unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]))
        if ranks := [tags[tag] for tag in own if tag in tags]:
            found.append((min(ranks), wheel))
    return min(found, key=lambda one: one[0])[1] if found else None


def main() -> None:
    """Resolve and write."""
    parser = argparse.ArgumentParser(prog="python -m tools.engine_lock", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("version", nargs="?", default="", help="empty: the one that is locked now")
    parser.add_argument("--cpu", action="store_true", help="the build for nodes without a GPU")
    arguments = parser.parse_args()
    engine = ENGINES[arguments.engine]
    lock = engine.cpu_lock if arguments.cpu else engine.lock
    if lock is None:
        raise SystemExit(f"{engine.title} has no build for nodes without a GPU that is locked here.")
    file, package = CHECKOUT / lock.file, lock.package or engine.package
    text = render(engine, lock, *resolve(lock, package, arguments.version or locked_version(lock, package)))
    file.write_text(text, encoding="utf-8")
    print("".join(line[1:] for line in file.read_text(encoding="utf-8").splitlines()[1:3]).strip())


if __name__ == "__main__":
    main()
