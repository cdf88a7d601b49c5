"""Options of the datasets in a profile. The controller uses them too, to refuse invalid profiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MOST_TOKENS = 2**20


class DistributionOptions(BaseModel):
    """Numbers drawn from a distribution that is truncated at both ends."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    distribution: Literal["normal", "lognormal"] = Field(description="a constant is a number, uniform two in brackets")
    mean: float = Field(gt=0, description="mean of the values, not of their logarithms, before both ends are cut off")
    stddev: float = Field(gt=0, description="standard deviation of the values, before both ends are cut off")
    least: float = Field(ge=0, description="smallest value drawn")
    most: float = Field(description="largest value drawn")

    @model_validator(mode="after")
    def _in_order(self) -> DistributionOptions:
        if not self.least <= self.mean <= self.most:
            raise ValueError("the mean must be between least and most")
        return self


Span = tuple[float, float]


def _drawn(value: Any, least: int, most: int, kind: type[int] | type[float]) -> Any:
    """Return a number, [least, most] or a distribution; anything else gives one error, where a union gives several."""
    what = f"a {'whole number' if kind is int else 'number'} from {least} to {most}"
    words = (
        f"it must be {what}, two of them ([the least, the most]), or a mapping with distribution (normal or "
        "lognormal), mean, stddev, least and most"
    )
    if isinstance(value, dict):
        try:
            value = DistributionOptions.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"{words}; {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    bounds = (value.least, value.most) if isinstance(value, DistributionOptions) else value
    bounds = bounds if isinstance(bounds, (list, tuple)) else (bounds,)
    numbers = all(type(each) in (int, float) and least <= each <= most for each in bounds)
    if not numbers or (kind is int and any(each != int(each) for each in bounds)) or len(bounds) > 2:
        raise ValueError(words)
    if isinstance(value, (list, tuple)) and len(value) != 2:
        raise ValueError(words)
    if bounds[0] > bounds[-1]:
        raise ValueError("the least is above the most")
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _length(value: Any) -> Any:
    if isinstance(value, float) or (isinstance(value, (list, tuple)) and any(type(each) is float for each in value)):
        value = "a fraction of a token"
    return _drawn(value, 1, MOST_TOKENS, int)


def _seconds(value: Any) -> Any:
    return _drawn(value, 0, 86400, float)


Lengths = Annotated[int | tuple[int, int] | DistributionOptions, BeforeValidator(_length)]
Seconds = Annotated[float | tuple[float, float] | DistributionOptions, BeforeValidator(_seconds)]


def bounds_of(drawn: float | Span | DistributionOptions) -> Span:
    """Return the least and the most that can be drawn."""
    if isinstance(drawn, DistributionOptions):
        return drawn.least, drawn.most
    return drawn if isinstance(drawn, tuple) else (drawn, drawn)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _SharedPrefix(_Options):
    """Prompts with a common beginning, like a system prompt."""

    shared_prefix_tokens: int = Field(
        0, ge=0, le=MOST_TOKENS, strict=True, description="tokens that prompts share at the beginning, before their own"
    )
    shared_prefix_share: float = Field(
        1.0,
        gt=0,
        le=1,
        strict=True,
        description="share of the prompts that begin with a shared prefix, drawn with the seed",
    )
    shared_prefixes: int = Field(
        1, ge=1, le=10**6, strict=True, description="number of different prefixes; each such prompt has one of them"
    )


class SyntheticOptions(_SharedPrefix):
    """The `dataset_options` of the dataset `synthetic`."""

    input_tokens: Lengths = Field(
        description="tokens of each prompt: a number; [least, most], uniform; or a [distribution](#distributions)"
    )
    output_tokens: Lengths | None = Field(
        None, description="tokens of each answer, exactly; same format; absent: as in `generation`"
    )
    prompts: int = Field(ge=1, le=10**6, strict=True, description="number of different prompts")
    seed: int = Field(0, ge=0, strict=True, description="the same seed and model give the same prompts")

    @property
    def longest(self) -> int:
        """The most tokens of a prompt."""
        return self.shared_prefix_tokens + int(bounds_of(self.input_tokens)[1])


class ConversationsOptions(_SharedPrefix):
    """The `dataset_options` of the dataset `conversations`."""

    conversations: int = Field(ge=1, le=10**6, strict=True, description="number of different conversations")
    turns: Lengths = Field(description="questions in each: a number, [least, most] or a distribution")
    input_tokens: Lengths = Field(description="tokens that each question adds; same format")
    output_tokens: Lengths | None = Field(
        None, description="tokens of each answer, exactly; same format; absent: as in `generation`"
    )
    think_s: Seconds = Field(0, description="seconds between an answer and the next question; same format")
    seed: int = Field(0, ge=0, strict=True, description="the same seed and model give the same conversations")


class TraceOptions(_Options):
    """The `dataset_options` of the dataset `trace`, whose file is `benchmark_dataset_path`."""

    queries: int | None = Field(None, ge=1, strict=True, description="only this many from the beginning; absent: all")
    block_tokens: int = Field(
        512, ge=1, le=MOST_TOKENS, strict=True, description="tokens that each entry of `hash_ids` stands for"
    )
    max_input_tokens: int = Field(
        MOST_TOKENS, ge=1, le=MOST_TOKENS, strict=True, description="longer prompts are cut to this"
    )
    max_output_tokens: int = Field(
        MOST_TOKENS, ge=1, le=MOST_TOKENS, strict=True, description="longer answers are cut to this"
    )
    seed: int = Field(0, ge=0, strict=True, description="the same seed, file and model give the same prompts")


class CnnDailymailOptions(_Options):
    """The `dataset_options` of the dataset `cnn_dailymail`."""

    prompts: int | None = Field(None, ge=1, strict=True, description="number of articles, from the first; absent: all")
    edge: bool = Field(False, strict=True, description="the 5,000 articles of MLPerf's edge benchmark, in its order")
