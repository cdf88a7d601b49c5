"""Goodput: the queries that met the limits of TTFT and TPOT together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from benchmark.records.base import Count, Record

# The share of answers that must meet the limits for users to count as served, as with limits of a P99. It takes as many
# queries as a P99 (`SAMPLES_NEEDED` in benchmark/metrics.py).
SERVED, NEEDED = 0.99, 662

Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Slo(Record):
    """Limits for every single answer (a service level objective). At least one is given."""

    ttft_ms: Limit | None = Field(None, description="most time to the first token, from the scheduled time")
    tpot_ms: Limit | None = Field(None, description="most time per output token after the first")

    @model_validator(mode="after")
    def _some(self) -> Slo:
        if self.ttft_ms is None and self.tpot_ms is None:
            raise ValueError("there is neither a limit of TTFT nor one of TPOT")
        return self


class Goodput(Record):
    """The queries that met all limits, and how many were in progress at once."""

    slo: Slo
    queries: Count = Field(description="planned queries; failed and unfinished ones count as missed")
    met: Count = Field(description="queries that met all limits")
    share: float = Field(description="met / queries")
    qps: float | None = Field(None, description="completed queries per second that met them")
    tokens_per_s: float | None = Field(None, description="their output tokens per second")
    in_flight: float | None = Field(None, description="queries in progress, mean over the measured time")
    users: Count | None = Field(
        None, description="queries in progress for at least half of the measured time: users served at once"
    )

    @property
    def served(self) -> bool:
        """Whether the measurement supports the claim that its users are served within the limits."""
        return self.queries >= NEEDED and self.share >= SERVED and bool(self.users)
