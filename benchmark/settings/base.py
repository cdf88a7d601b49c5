"""The base of all parts of the settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError


class SettingsPart(BaseModel):
    """Base of the settings of one topic, which are combined in `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_as_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        return no_switch(value) if annotation in (int, float) else value


def no_switch(value: Any) -> Any:
    """Return the input of a number, refusing YAML's true and false, which would become 1 and 0."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value
