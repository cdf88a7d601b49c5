"""Check the options that a profile gives to an engine, a scenario or a dataset."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.errors import InputError
from benchmark.faults import sentences

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def check(kind: type[OptionsT], given: dict[str, Any], whose: str) -> OptionsT:
    """Return `given` as options of that kind. Raises InputError, one sentence per fault."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InputError("\n".join(sentences(error, kind, before=f"{whose}: ", noun="an option"))) from None


def check_none(given: dict[str, Any], whose: str) -> None:
    """Raise InputError if there are any options."""
    if given:
        raise InputError(f"{whose} has no options, but the profile sets {', '.join(given)}.")
