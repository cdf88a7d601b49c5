"""Tell as JSON which Python this is, and which of the packages that are named are installed: nothing of it is imported.

Its text is run in environments that exist (`python3 -c TEXT NAME ...`), by any Python from 3.8 on, without our package.
"""

from __future__ import annotations

import json
import platform
import re
import runpy
import sys
from collections.abc import Collection
from importlib import metadata, util
from pathlib import Path
from typing import Any


def versions(names: Collection[str], path: list[str] | None = None) -> dict[str, str]:
    """Return name -> version of the packages that are there; `path`: where to look, in the place of sys.path.

    A build for other hardware has a name of its own, NAME-cpu, under which it is found for NAME.
    """
    found: dict[str, str] = {}
    builds: dict[str, dict[str, str]] = {}
    for distribution in metadata.distributions(path=sys.path if path is None else path):
        described: Any = distribution.metadata
        name = canonical((described["Name"] if described else None) or "")
        if name in names:
            found.setdefault(name, distribution.version)
            continue
        for wanted in (one for one in names if name.startswith(one + "-")):
            module = wanted.replace("-", "_") + "/__init__.py"
            if any(str(file) == module for file in distribution.files or ()):
                builds.setdefault(wanted, {}).setdefault(name, distribution.version)
    for wanted, others in builds.items():
        found.update({} if wanted in found else others)
    return found


def canonical(name: str) -> str:
    """Return a package's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cuda_of_torch() -> str | None:
    """Return the CUDA that torch is built for; empty: a build without; None: there is no torch, or it does not say."""
    spec = util.find_spec("torch")
    for place in (spec.submodule_search_locations or []) if spec else []:
        try:
            return str(runpy.run_path(str(Path(place) / "version.py"))["cuda"] or "")
        except (OSError, KeyError):
            continue
    return None


if __name__ == "__main__":
    asked = versions({canonical(name) for name in sys.argv[1:]})
    print(json.dumps({"python": platform.python_version(), "packages": asked, "cuda": cuda_of_torch()}))
