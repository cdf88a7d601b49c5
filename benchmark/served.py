"""Which model a result's numbers are of: by the settings where the run loads it, else by what the server reports.

Everything that shows or compares model, revision or precision asks here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from benchmark.profiles import NONE
from benchmark.records import EngineInfo
from benchmark.settings import Settings
from benchmark.settings.measurement import is_directory_path

ENDPOINT, SIMULATED = "endpoint", "simulated"
# In the details of an engine that answered in the place of the profile's own.
INSTEAD_OF, BECAUSE = "instead_of", "because"
NOT_REPORTED = "not reported by the server"
# Hex digits of a commit that people compare.
SHORT = 12
# Of an engine's details: how the weights that it loaded are quantized.
QUANTIZATION = "quantization"
# Where the hub's cache keeps a model: the name has its slash as two dashes.
SNAPSHOT = re.compile(r"/models--(?P<owner>.+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")


@dataclass(frozen=True)
class ModelFacts:
    """What was measured. `revision` is empty for a model that has none; the last three may be NOT_REPORTED."""

    name: str
    revision: str
    dtype: str
    served: str = ""
    """What else the engine or a server reports of it, such as its quantization; empty: nothing."""

    @property
    def unknown(self) -> list[str]:
        """Name what the server does not report, in words."""
        named = (("revision", self.revision), ("precision", self.dtype))
        return [name for name, value in named if value == NOT_REPORTED]


def model_facts(settings: Settings, engine: str, details: Mapping[str, Any] | None = None) -> ModelFacts:
    """Return what the engine of that name measures; `details`: what it said when it had loaded, if it did.

    The engine `endpoint` measures a server that somebody else chose the weights of: nothing of it is known but what
    it reports. Every other engine loads what the settings name, or does not start.
    """
    if engine != ENDPOINT:
        directory = is_directory_path(settings.benchmark_model)
        revision = "" if directory else settings.benchmark_model_revision
        quantized = (details or {}).get(QUANTIZATION)
        # Then the precision that was asked for is that of the other weights alone.
        served = f"weights quantized by {quantized}" if quantized else ""
        return ModelFacts(settings.benchmark_model, revision, settings.benchmark_dtype, served)
    known = details or {}
    given = known.get("reported")
    reported = {name: str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    if "root" in reported:
        # Where it lies on that machine makes no difference.
        reported["root"] = ", ".join(map(_placeless, reported["root"].split(", ")))
        if reported["root"] == _placeless(str(known.get("model"))):
            del reported["root"]
    others = [f"{name} {reported[name]}" for name in sorted(reported) if name not in ("dtype", "revision")]
    if answered := known.get("answered_by"):
        others.insert(0, f"answers as {answered}")
    if known.get("models") and known.get("not_listed_by"):
        others.insert(0, "not in the server's list")
    return ModelFacts(
        name=str(known.get("model") or settings.benchmark_endpoint_model or f"model {NOT_REPORTED}"),
        revision=reported.get("revision", NOT_REPORTED),
        dtype=reported.get("dtype", NOT_REPORTED),
        served=", ".join(others),
    )


def describe_model(settings: Settings, engine: str, details: Mapping[str, Any] | None = None) -> str:
    """Return model, revision, precision and device; of a server also what else it reports, and what it does not."""
    if engine == NONE:
        return f"no model, {settings.benchmark_device}"
    facts = model_facts(settings, engine, details)
    name = facts.name
    if facts.revision not in ("", NOT_REPORTED):
        name = f"{name}@{facts.revision[:SHORT]}"
    parts = [name] if facts.dtype == NOT_REPORTED else [name, facts.dtype]
    parts += [facts.served] if facts.served else []
    parts += [f"{' and '.join(facts.unknown)} {NOT_REPORTED}"] if facts.unknown else []
    return ", ".join([*parts, settings.benchmark_device])


def in_label(name: str, value: str) -> str:
    """Return a value of a comparison key as part of a label: what is not known says of what."""
    if name == "engine" and value == f"{SIMULATED} ({SIMULATED})":
        return SIMULATED  # the key says of any engine that it simulates; here its name does
    return f"{'precision' if name == 'dtype' else name} {value}" if value == NOT_REPORTED else value


def server_version(engine: EngineInfo | None) -> str | None:
    """Return the version that a server reported; None: it reported none, or the engine is no server."""
    version = engine.details.get("version") if engine is not None and "urls" in engine.details else None
    return str(version)[:200] if version else None


def same_model(one: str, other: str) -> bool:
    """Return whether two names can only mean one model.

    Hub ids have to be equal: another owner's upload is another model. A path in the hub's cache is the hub id that it
    spells. Of any other path, and of a name without an owner, the last part is compared.
    """
    if not one or not other:
        return False
    first, second = hub_name(one), hub_name(other)
    if first == second:
        return True
    if _owned(first) and _owned(second):
        return False
    return _last(first) == _last(second)


def hub_name(name: str) -> str:
    """Return the hub id that a path in the hub's cache spells; any other name as it is."""
    found = SNAPSHOT.search(name)
    return f"{found['owner']}/{found['name']}" if found else name.rstrip("/")


def commit_of(name: str) -> str:
    """Return the commit in a path in the hub's cache, or nothing."""
    found = SNAPSHOT.search(name)
    return found["commit"] if found else ""


def _placeless(name: str) -> str:
    """Return the hub id in the hub's cache, the last part of another path, any other name as it is."""
    name = hub_name(name)
    return _last(name) if is_directory_path(name) else name


def _owned(name: str) -> bool:
    return "/" in name and not is_directory_path(name)


def _last(name: str) -> str:
    return PurePosixPath(name).name
