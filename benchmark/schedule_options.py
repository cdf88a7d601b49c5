"""Options of the scenarios `schedule` and `conversations` in a profile. The controller uses them too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Options(BaseModel):
    """The `scenario_options` of the scenario `schedule`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    arrivals: Literal["constant", "poisson", "gamma", "trace"] = Field(
        "poisson",
        description="when queries arrive: evenly spaced, at random, in bursts, or at the dataset's own times",
    )
    burstiness: float = Field(
        1.0,
        gt=0,
        description="for gamma: shape of the distribution of gaps; 1 is poisson, below 1 comes in bursts, above 1 is "
        "more even",
    )
    time_scale: float = Field(
        1.0, gt=0, description="for a trace: all its times are multiplied by this; 0.5: twice as fast"
    )
    seed: int = Field(0, ge=0, strict=True, description="the same seed gives the same gaps on every node")

    @model_validator(mode="after")
    def _of_these_arrivals(self) -> Options:
        if self.burstiness != 1 and self.arrivals != "gamma":
            raise ValueError(f"burstiness belongs to arrivals: gamma, but arrivals is {self.arrivals}")
        if self.time_scale != 1 and self.arrivals != "trace":
            raise ValueError(f"time_scale belongs to arrivals: trace, but arrivals is {self.arrivals}")
        return self


class ConversationOptions(BaseModel):
    """The `scenario_options` of the scenario `conversations`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    users: int = Field(1, ge=1, le=100_000, strict=True, description="users who converse at the same time, on each GPU")
