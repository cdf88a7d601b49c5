"""The base of all records, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1

Count = Annotated[int, Field(ge=0, lt=2**63)]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

Status = Literal["complete", "interrupted", "failed"]
Stage = Literal[
    "preflight",
    "python_env",
    "hf_cache",
    "environment",
    "probes",
    "loading",
    "warm-up",
    "searching",
    "ready",
    "measuring alone",
    "measuring",
    "accuracy",
    "audit",
    "done",
    "fetch",
]


class Record(BaseModel):
    """Base of every record: immutable, no unknown fields, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
