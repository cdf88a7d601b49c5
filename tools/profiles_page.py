"""Generate docs/profiles.md, which says how to write a profile, from the models that check profiles."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from benchmark.dataset_options import DistributionOptions
from benchmark.option_models import DATASET_OPTIONS, ENGINE_OPTIONS, SCENARIO_OPTIONS
from benchmark.profiles import Generation, Limit, Profile, Sweep, plugins
from benchmark.provisioned import ENGINES
from benchmark.verdict import accuracy_paths, metric_paths

# Fields with one value for each file in the matching directory.
PLUGINS = ("scenario", "engine", "dataset")
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "mapping"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def profiles_page() -> str:
    """Return docs/profiles.md: the text of tools/profiles_page.md and a table of each part of a profile."""
    text = (Path(__file__).parent / "profiles_page.md").read_text(encoding="utf-8").rstrip("\n")
    engines = {**ENGINE_OPTIONS, **{name: engine.options for name, engine in ENGINES.items()}}
    parts = [
        text,
        "### Fields",
        fields_table(Profile),
        "### `generation`",
        fields_table(Generation),
        "### Each of `limits` and `accuracy_limits`",
        fields_table(Limit),
        f"`limits` may name {_paths(metric_paths())}; `accuracy_limits` {_paths(accuracy_paths())}. "
        "What each is: [metrics](metrics.md).",
        "### `sweep`",
        fields_table(Sweep),
        "## Options",
        "Absent, or none by default: decided when the run starts, and recorded in the result.",
    ]
    for kind, known in (("engine", engines), ("scenario", SCENARIO_OPTIONS), ("dataset", DATASET_OPTIONS)):
        without = [f"`{name}`" for name, options in known.items() if options is None]
        parts += [f"### `{kind}_options`"]
        for name, options in known.items():
            if options is not None:
                parts += [f"#### The {kind} `{name}`", fields_table(options)]
        if kind == "dataset":
            parts += ["#### Distributions", fields_table(DistributionOptions)]
        parts += [f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} none."] if without else []
    return "\n\n".join(parts) + "\n"


def fields_table(model: type[BaseModel]) -> str:
    """Return a model's fields as a Markdown table."""
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        named = model is Profile and name in PLUGINS
        kind = ", ".join(f"`{each}`" for each in plugins(f"{name}s")) if named else _type(field)
        cells = (f"`{name}`", kind, _default(field), field.description or "")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _type(field: FieldInfo) -> str:
    found = [
        f"{BOUNDS[key]} {int(value) if value == int(value) else value:,}"
        for bound in field.metadata
        for key, value in _bounds(bound)
    ]
    return ", ".join([_words(field.annotation), *found])


def _bounds(bound: object) -> list[tuple[str, Any]]:
    return [(key, getattr(bound, key)) for key in BOUNDS if hasattr(bound, key)]


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), [kind for kind in get_args(annotation) if kind is not NoneType]
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, UnionType):
        return " or ".join(_words(kind) for kind in inner)
    if origin in (list, tuple):
        if origin is tuple and Ellipsis not in inner:
            return f"[{', '.join(map(_words, inner))}]"
        return f"list of {_words(inner[0])}" + "s" * (inner[0] is not str)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {Limit: "limit", DistributionOptions: "distribution"}.get(annotation, "mapping")
    return WORDS[origin or annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or value == [] or value == {} or isinstance(value, BaseModel):
        return "none" if value is None else ""
    if value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _paths(paths: tuple[str, ...]) -> str:
    """Return the metric paths as text, grouping metrics with the same statistics."""
    parts: dict[str, list[str]] = {}
    for path in paths:
        head, _, tail = path.partition(".")
        parts.setdefault(head, []).extend([tail] if tail else [])
    alike: dict[tuple[str, ...], list[str]] = {}
    for head, tails in parts.items():
        alike.setdefault(tuple(tails), []).append(f"`{head}`")
    return "; ".join(
        ", ".join(heads)
        + (f",{' each' * (len(heads) > 1)} with {', '.join(f'`.{tail}`' for tail in tails)}" if tails else "")
        for tails, heads in alike.items()
    )
