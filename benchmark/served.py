"""The model that was measured: from the settings if the run loads it, else from what the server reports.

Everything that shows or compares model, revision or precision uses this.
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
# Keys in the details of an engine that replaced the profile's own.
INSTEAD_OF, BECAUSE = "instead_of", "because"
NOT_REPORTED = "not reported by the server"
# Hex digits of a commit that are shown.
SHORT = 12
# Key of an engine's details: the quantization of the loaded weights.
QUANTIZATION = "quantization"
# A model's directory in the hub's cache: the slash of its name is two dashes.
SNAPSHOT = re.compile(r"/models--(?P<owner>.+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")


@dataclass(frozen=True)
class ModelFacts:
    """The measured model. `revision`: empty for a model without one; the last three may be NOT_REPORTED."""

    name: str
    revision: str
    dtype: str
    served: str = ""
    """Further reports of the engine or server, such as the quantization; empty: none."""

    @property
    def unknown(self) -> list[str]:
        """The names of what the server does not report, in words."""
        named = (("revision", self.revision), ("precision", self.dtype))
        return [name for name, value in named if value == NOT_REPORTED]


def model_facts(settings: Settings, engine: str, details: Mapping[str, Any] | None = None) -> ModelFacts:
    """Return the model that an engine measures; `details`: the engine's report after loading, if it loaded.

    The engine `endpoint` measures a server with weights that are not chosen by the run: only its reports are known.
    Every other engine loads the model in the settings, or does not start.
    """
    if engine != ENDPOINT:
        directory = is_directory_path(settings.benchmark_model)
        revision = "" if directory else settings.benchmark_model_revision
        quantized = (details or {}).get(QUANTIZATION)
        # The precision in the settings then only applies to the other weights.
        served = f"weights quantized by {quantized}" if quantized else ""
        return ModelFacts(settings.benchmark_model, revision, settings.benchmark_dtype, served)
    known = details or {}
    given = known.get("reported")
    reported = {name: str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    if "root" in reported:
        # Its directory on that machine makes no difference.
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
    """Return model, revision, precision and device; for a server also its other reports, and what is not reported."""
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
    """Return a value of a comparison key for a label; an unknown value is preceded by its name."""
    if name == "engine" and value == f"{SIMULATED} ({SIMULATED})":
        return SIMULATED  # the key has this flag for any engine; in a label the name is enough
    return f"{'precision' if name == 'dtype' else name} {value}" if value == NOT_REPORTED else value


def server_version(engine: EngineInfo | None) -> str | None:
    """Return the version that a server reported; None if it reported none, or the engine is not a server."""
    version = engine.details.get("version") if engine is not None and "urls" in engine.details else None
    return str(version)[:200] if version else None


def same_model(one: str, other: str) -> bool:
    """Return whether two names mean the same model.

    Hub ids must be equal: another owner's upload is another model. A path in the hub's cache counts as its hub id. Of
    any other path, and of a name without an owner, the last part is compared.
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
    """Return the hub id in a path of the hub's cache; any other name unchanged."""
    found = SNAPSHOT.search(name)
    return f"{found['owner']}/{found['name']}" if found else name.rstrip("/")


def commit_of(name: str) -> str:
    """Return the commit in a path of the hub's cache, if any."""
    found = SNAPSHOT.search(name)
    return found["commit"] if found else ""


def _placeless(name: str) -> str:
    """Return the hub id in a path of the hub's cache, the last part of another path, or any other name unchanged."""
    name = hub_name(name)
    return _last(name) if is_directory_path(name) else name


def _owned(name: str) -> bool:
    return "/" in name and not is_directory_path(name)


def _last(name: str) -> str:
    return PurePosixPath(name).name
