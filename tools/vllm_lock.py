"""Write requirements-vllm.txt: vLLM and everything that it needs, each with its version and the wheels' SHA-256.

python tools/vllm_lock.py [VERSION]

Asks the package index through uv, which reads the wheels' metadata and downloads no wheel. Without a version the one
that is locked now is resolved anew, with what is the newest for it today.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomllib

LOCK = Path(__file__).resolve().parents[1] / "requirements-vllm.txt"
# What vLLM itself says of Python, and where its wheels on the package index run.
PYTHONS = ">=3.11,<3.15"
# Said once here, and dropped from every line: the wheels are for this anyway.
EVERYWHERE = ("sys_platform == 'linux'", "platform_machine == 'x86_64'", "implementation_name == 'cpython'")
FITTING = re.compile(r"-(any|(many)?linux[\w.]*_x86_64)\.whl$")
PROJECT = f"""[project]
name = "lock"
version = "0"
requires-python = "{PYTHONS}"
dependencies = ["vllm=={{version}}"]
[tool.uv]
environments = ["{" and ".join(EVERYWHERE)}"]
"""
HEAD = """# What `vllm serve` needs (benchmark_engine: vllm), in an environment of its own: it pins its own torch.
# Made by tools/vllm_lock.py: for Python {pythons} on x86-64 Linux, {count} packages, {gb:.1f} GB of wheels at most.
# pip takes nothing that is not listed here with its checksum.
"""


def locked_version() -> str:
    """Return the version of vLLM that is locked now."""
    match = re.search(r"^vllm==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise SystemExit(f"{LOCK} locks no vllm: give the version.")
    return match[1]


def resolve(version: str) -> tuple[str, dict[str, Any]]:
    """Return what uv resolves, as requirements and as its lock. Ends where it does not."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "pyproject.toml").write_text(PROJECT.format(version=version), encoding="utf-8")
        subprocess.run(["uv", "lock", "--quiet"], cwd=place, check=True)
        words = ["--frozen", "--no-emit-project", "--no-header", "--no-annotate", "--no-hashes"]
        command = ["uv", "export", "--quiet", *words]
        text = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
        return text, tomllib.loads((Path(place) / "uv.lock").read_text(encoding="utf-8"))


def render(requirements: str, lock: dict[str, Any]) -> str:
    """Return the text of requirements-vllm.txt."""
    packages = {(one["name"], one["version"]): one for one in lock["package"]}
    size, lines = 0, []
    for line in requirements.splitlines():
        pin, _, marker = (part.strip() for part in line.partition(";"))
        name, version = pin.split("==")
        wheels = [wheel for wheel in packages[name, version].get("wheels", []) if fits(wheel["url"])]
        if not wheels:
            raise SystemExit(f"{pin} has no wheel for x86-64 Linux: it would be built on the node.")
        size += max(wheel["size"] for wheel in wheels)
        rest = " and ".join(part for part in marker.split(" and ") if part and not is_told(part))
        words = [f"{pin} ; {rest}" if rest else pin, *sorted(f"--hash={wheel['hash']}" for wheel in wheels)]
        lines.append(" \\\n    ".join(words))
    head = HEAD.format(pythons=PYTHONS.replace(",", " and "), count=len(lines), gb=size / 1e9)
    return head + "\n".join(lines) + "\n"


def fits(url: str) -> bool:
    """Tell whether the wheel at this address runs on x86-64 Linux with glibc."""
    return bool(FITTING.search(urlsplit(url).path))


def is_told(marker: str) -> bool:
    """Tell whether a part of a marker says no more than what the whole file is for."""
    return marker in (*EVERYWHERE, "platform_python_implementation != 'PyPy'")


def main() -> None:
    """Resolve and write."""
    version = sys.argv[1] if len(sys.argv) > 1 else locked_version()
    LOCK.write_text(render(*resolve(version)), encoding="utf-8")
    print(f"{LOCK.name}: {LOCK.read_text(encoding='utf-8').splitlines()[1].removeprefix('# ')}")


if __name__ == "__main__":
    main()
