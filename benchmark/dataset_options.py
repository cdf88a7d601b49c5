"""What a profile may say of the datasets. Both halves read it: the controller refuses what cannot be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_TOKENS = 2**20


def _length(value: Any) -> Any:
    """Return a length or the least and the most; one message for whatever else it is, where a union has several."""
    bounds = value if isinstance(value, (list, tuple)) else (value,)
    whole = all(type(each) is int and 1 <= each <= MOST_TOKENS for each in bounds)
    if not whole or (isinstance(value, (list, tuple)) and len(value) != 2):
        raise ValueError(f"it must be a whole number from 1 to {MOST_TOKENS}, or two of them: the least and the most")
    return tuple(bounds) if isinstance(value, (list, tuple)) else value


class SyntheticOptions(BaseModel):
    """The `dataset_options` of the dataset `synthetic`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    input_tokens: Annotated[int | tuple[int, int], BeforeValidator(_length)] = Field(
        description="tokens of each prompt; or [the least, the most]"
    )
    prompts: int = Field(ge=1, le=10**6, strict=True, description="how many different prompts are made")
    seed: int = Field(0, ge=0, strict=True, description="the same seed and model give the same prompts")

    @model_validator(mode="after")
    def _in_order(self) -> SyntheticOptions:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError("input_tokens: the least is above the most")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most tokens of a prompt."""
        return self.input_tokens if isinstance(self.input_tokens, tuple) else (self.input_tokens, self.input_tokens)


class CnnDailymailOptions(BaseModel):
    """The `dataset_options` of the dataset `cnn_dailymail`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    prompts: int | None = Field(None, ge=1, strict=True, description="the first so many articles; absent: all")
    edge: bool = Field(False, strict=True, description="the 5,000 articles of MLPerf's edge benchmark, in its order")
