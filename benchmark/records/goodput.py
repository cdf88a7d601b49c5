"""What users got in time: the queries that met the limits of TTFT and TPOT together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from benchmark.records.base import Count, Record

# The share of answers that have to meet the limits before users are said to be served: what limits of P99 ask for. Of
# fewer queries than a P99 needs nothing can be said about so large a share (`SAMPLES_NEEDED` in benchmark/metrics.py).
SERVED, NEEDED = 0.99, 662

Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Slo(Record):
    """Limits that every single answer is held against (a service level objective). At least one is given."""

    ttft_ms: Limit | None = Field(None, description="time to the first token at most, from the scheduled time")
    tpot_ms: Limit | None = Field(None, description="time per output token after the first at most")

    @model_validator(mode="after")
    def _some(self) -> Slo:
        if self.ttft_ms is None and self.tpot_ms is None:
            raise ValueError("there is neither a limit of TTFT nor one of TPOT")
        return self


class Goodput(Record):
    """The queries that met all limits, and how many were in progress meanwhile."""

    slo: Slo
    queries: Count = Field(description="that were planned: failed and unfinished ones are among them, and missed")
    met: Count = Field(description="that met all limits")
    share: float = Field(description="met / queries")
    qps: float | None = Field(None, description="completed queries per second that met them")
    tokens_per_s: float | None = Field(None, description="their output tokens per second")
    in_flight: float | None = Field(None, description="queries in progress, mean over the measured time")
    users: Count | None = Field(
        None, description="queries in progress for at least half of the measured time: users served at once"
    )

    @property
    def served(self) -> bool:
        """Whether what was measured carries the sentence that its users are served within the limits."""
        return self.queries >= NEEDED and self.share >= SERVED and bool(self.users)
