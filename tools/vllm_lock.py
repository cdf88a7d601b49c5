"""Write requirements-vllm.txt: vLLM and everything that it needs, each with its version and the wheels' SHA-256.

python -m tools.vllm_lock [VERSION]

Asks the package index through uv, which reads the wheels' metadata and downloads no wheel. Without a version the one
that is locked now is resolved anew, with what is the newest for it today.
"""

from __future__ import annotations

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
from benchmark.vllm import BELOW_PYTHON, GLIBC, LOCK, MACHINE, OLDEST_PYTHON

FILE = Path(__file__).resolve().parents[1] / LOCK
UV = (sys.executable, "-m", "uv")
PYTHONS = [f"3.{minor}" for minor in range(OLDEST_PYTHON[1], BELOW_PYTHON[1])]
TARGETS = [Target(python=python, platform=f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{MACHINE}") for python in PYTHONS]
# Said once in the head, and dropped from every line: the wheels are for this anyway.
EVERYWHERE = ("sys_platform == 'linux'", f"platform_machine == '{MACHINE}'", "implementation_name == 'cpython'")
PROJECT = f"""[project]
name = "lock"
version = "0"
requires-python = ">={PYTHONS[0]},<3.{BELOW_PYTHON[1]}"
dependencies = ["vllm=={{version}}"]
[tool.uv]
environments = ["{" and ".join(EVERYWHERE)}"]
"""
HEAD = """# What `vllm serve` needs (benchmark_engine: vllm), in an environment of its own: it pins its own torch.
# Made by tools/vllm_lock.py: {count} packages, up to {gb:.1f} GB of wheels,
# for Python {first} to {last} on {machine} with glibc {glibc} or newer. pip installs nothing else.
"""


def locked_version() -> str:
    """Return the version of vLLM that is locked now."""
    match = re.search(r"^vllm==(\S+)", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise SystemExit(f"{FILE} locks no vllm: give the version.")
    return match[1]


def resolve(version: str) -> tuple[str, dict[str, Any]]:
    """Return what uv resolves, as requirements and as its lock. Ends where it does not."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "pyproject.toml").write_text(PROJECT.format(version=version), encoding="utf-8")
        subprocess.run([*UV, "lock", "--quiet"], cwd=place, check=True)
        words = ["--frozen", "--no-emit-project", "--no-header", "--no-annotate", "--no-hashes"]
        command = [*UV, "export", "--quiet", *words]
        text = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
        return text, tomllib.loads((Path(place) / "uv.lock").read_text(encoding="utf-8"))


def render(requirements: str, lock: dict[str, Any]) -> str:
    """Return the text of the lock. Ends where a package has no wheel for one of the Pythons that it is asked for."""
    packages = {(one["name"], one["version"]): one for one in lock["package"]}
    sizes, lines = dict.fromkeys(PYTHONS, 0), []
    for line in requirements.splitlines():
        pin, _, marker = (part.strip() for part in line.partition(";"))
        name, version = pin.split("==")
        hashes = set()
        for target in TARGETS:
            if marker and not Marker(marker).evaluate(target.environment()):
                continue
            wheel = best(packages[name, version].get("wheels", []), target)
            if wheel is None:
                raise SystemExit(f"{pin} has no wheel for {target}: it would be built on the node.")
            hashes.add(f"--hash={wheel['hash']}")
            sizes[target.python] += wheel["size"]
        rest = " and ".join(part for part in marker.split(" and ") if part and not is_reported(part))
        lines.append(" \\\n    ".join([f"{pin} ; {rest}" if rest else pin, *sorted(hashes)]))
    head = HEAD.format(
        count=len({line.split("==")[0] for line in lines}),
        gb=max(sizes.values()) / 1e9,
        first=PYTHONS[0],
        last=PYTHONS[-1],
        machine=MACHINE,
        glibc=".".join(map(str, GLIBC)),
    )
    return head + "\n".join(lines) + "\n"


def best(wheels: Iterable[dict[str, Any]], target: Target) -> dict[str, Any] | None:
    """Return the wheel that pip takes on such a node; None where there is none."""
    tags, found = target.tags(), []
    for wheel in wheels:
        *_, own = parse_wheel_filename(unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]))
        if ranks := [tags[tag] for tag in own if tag in tags]:
            found.append((min(ranks), wheel))
    return min(found, key=lambda one: one[0])[1] if found else None


def is_reported(marker: str) -> bool:
    """Return whether a part of a marker says no more than what the whole file is for."""
    return marker in (*EVERYWHERE, "platform_python_implementation != 'PyPy'")


def main() -> None:
    """Resolve and write."""
    version = sys.argv[1] if len(sys.argv) > 1 else locked_version()
    FILE.write_text(render(*resolve(version)), encoding="utf-8")
    print("".join(line[1:] for line in FILE.read_text(encoding="utf-8").splitlines()[1:3]).strip())


if __name__ == "__main__":
    main()
