"""Sentences on faults in a user's input: the field, its value, what is allowed and the nearest name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MOST_SHOWN = 80
# With few allowed words, one is always somewhat similar to the input.
CLOSE = 0.75
_NEEDED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text (in quotes)",
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping (lines of name: value)"),
}
_BOUNDS = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def sentences(
    error: ValidationError, model: type[BaseModel], *, before: str = "", noun: str = "a field", listed: bool = True
) -> list[str]:
    """Return a sentence for each fault that pydantic found (see `sentence`)."""
    each = [sentence(fault, model, before=before, noun=noun, listed=listed) for fault in error.errors()]
    return list(dict.fromkeys(each))


def sentence(
    fault: ErrorDetails,
    model: type[BaseModel],
    *,
    before: str = "",
    noun: str = "a field",
    listed: bool = True,
    more: Collection[str] = (),
) -> str:
    """Return a sentence for a fault.

    `before`: what precedes the field (a file's name); `noun`: what an unknown name is not; `listed`: whether to list
    all known names; `more`: known names that are not fields of the model.
    """
    path = [str(part) for part in fault["loc"]]
    field = before + ".".join(path)
    if path[-1:] == ["[key]"]:
        # Pydantic's path to a key of a mapping.
        return _value(f"A name in {before}{'.'.join(path[:-2])}", fault)
    if fault["type"] == "extra_forbidden":
        return _unknown(field, path, model, noun, listed, more)
    if fault["type"] == "missing":
        return f"{field} is missing."
    return _value(field if path else before.rstrip(": ") or "It", fault)


def nearest(name: str, names: Collection[str]) -> str:
    """Return the name that was probably meant, if any."""
    return next(iter(difflib.get_close_matches(name, names, n=1)), "")


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the end of a sentence about an unknown name."""
    return f": did you mean {meant}?" if (meant := nearest(name, names)) else "."


def _unknown(
    field: str, path: list[str], model: type[BaseModel], noun: str, listed: bool, more: Collection[str]
) -> str:
    *parents, name = path
    within = _within(model, parents)
    names = [alias.alias or key for key, alias in within.model_fields.items()]
    meant = nearest(name, [*names, *more]) or next(_elsewhere(name, within), "")
    end = f": did you mean {'.'.join([*parents, meant])}?" if meant else "."
    return f"{field} is not {noun}{end}" + (f" Known: {', '.join(names)}." if listed else "")


def _within(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """Return the model of the field at a path, ignoring list indexes."""
    for part in path:
        if part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _elsewhere(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the fields one level deeper that have that name."""
    for key, field in model.model_fields.items():
        if any(name in deeper.model_fields for deeper in _models(field.annotation)):
            yield f"{key}.{name}"


def _value(field: str, fault: ErrorDetails) -> str:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx") or {}
    if kind == "literal_error":
        allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        close = difflib.get_close_matches(str(value), allowed, n=1, cutoff=CLOSE)
        words = f"it must be {_or(allowed)}" + (f": did you mean {close[0]}?" if close else ".")
    elif kind in _NEEDED:
        words = f"it must be {_NEEDED[kind]}."
    elif kind in _BOUNDS:
        words = f"it must be {_BOUNDS[kind].format(**context)}."
    elif kind == "string_too_short":
        words = "it must not be empty."
    else:
        said = str(fault["msg"]).removeprefix("Value error, ")
        words = f"{said[0].lower()}{said[1:]}" + "." * (said[-1] not in ".?")
    # Showing a whole mapping would hide what is wrong with it.
    whole = isinstance(value, dict) and kind not in _NEEDED
    return f"{field}: {words}" if whole else f"{field} is {_shown(value)}: {words}"


def _or(words: list[str]) -> str:
    shown = [word or "empty" for word in words]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _shown(value: Any) -> str:
    """Return a value as written, without secrets in URLs."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    shown = re.sub(r"//[^/\s]*@", "//...@", f"{value!r}")
    shown = re.sub(r"(://[^\s'?]*)\?[^'\s]*", r"\1?...", shown)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."
