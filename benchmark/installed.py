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
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any

# Where PYTHONPATH leads whoever asks, to see whether this Python follows it: our own code is found by that.
OURS = "/llm-benchmark"


def versions(names: Collection[str], path: list[str] | None = None) -> dict[str, str]:
    """Return name -> version of the packages that are there; `path`: where to look, in the place of sys.path.

    A build for other hardware has a name of its own, NAME-cpu, under which it is found for NAME. A version that the
    metadata do not say is "unknown", or all that they say: "2.10.0 and 2.11.0".
    """
    places = sys.path if path is None else path
    found = {name: _version(list(metadata.distributions(name=name, path=places))) for name in names}
    missing = [name for name in names if not found[name]]
    for distribution in metadata.distributions(path=places) if missing else ():
        name = canonical(_said(distribution)[0])
        for wanted in missing:
            if name.startswith(wanted + "-") and name not in found and _holds(distribution, wanted):
                found[name] = _version([distribution])
    return {name: version for name, version in found.items() if version}


def _version(distributions: list[metadata.Distribution]) -> str:
    """Return what metadata of one package say of its version, those of the first place; empty: there are none."""
    first = [one for one in distributions if one.locate_file("") == distributions[0].locate_file("")]
    said = sorted({version for one in first if (version := _said(one)[1])})
    return " and ".join(said) or ("unknown" if first else "")


def _said(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return a package's name and version as it says them; empty where its metadata cannot be read."""
    try:
        described: Any = distribution.metadata
        return described["Name"] or "", described["Version"] or ""
    except Exception:  # each Python says it in another way
        return "", ""


def _holds(distribution: metadata.Distribution, name: str) -> bool:
    module = name.replace("-", "_") + "/__init__.py"
    try:
        return any(str(file) == module for file in distribution.files or ())
    except Exception:  # as above
        return False


def canonical(name: str) -> str:
    """Return a package's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cuda_of_torch() -> str | None:
    """Return the CUDA that torch is built for; empty: a build without; None: there is no torch, or it does not say."""
    spec = util.find_spec("torch")
    for place in (spec.submodule_search_locations or []) if spec else []:
        with suppress(Exception):  # it may hold whatever its builder wrote
            return str(runpy.run_path(str(Path(place) / "version.py"))["cuda"] or "")
    return None


if __name__ == "__main__":
    asked = versions({canonical(name) for name in sys.argv[1:]})
    found = {"python": platform.python_version(), "packages": asked, "cuda": cuda_of_torch()}
    print(json.dumps({**found, "follows_path": OURS in sys.path}))
