"""Check the options that a profile gives to an engine, a scenario or a dataset."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.errors import InputError
from benchmark.files import first_fault

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def check(kind: type[OptionsT], given: dict[str, Any], whose: str, hint: str = "") -> OptionsT:
    """Return `given` as options of that kind. Raises InputError, one sentence and the hint, for the first fault."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{whose}: {first_fault(error, 'options')}.{hint and ' '}{hint}") from None


def check_none(given: dict[str, Any], whose: str) -> None:
    """Raise InputError where there are options for what has none."""
    if given:
        raise InputError(f"{whose} has no options; the profile gives {', '.join(given)}.")
