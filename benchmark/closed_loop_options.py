"""What a profile may say of the closed loop. Both halves read it: the controller refuses what cannot be."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from benchmark.profiles import MOST_IN_FLIGHT

# Queries for each that is in flight, where the profile does not say how many there are: the first begin all at once,
# the last end in a system that empties.
LEAST_ROUNDS = 4


class Options(BaseModel):
    """The profile's `scenario_options`. The last two take the place of the profile's `samples`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    concurrency: int = Field(
        1,
        ge=1,
        le=MOST_IN_FLIGHT,
        strict=True,
        description="queries in flight on each GPU; on the CPU on each replica",
    )
    min_query_count: int | None = Field(
        None, ge=1, description="total queries, but at least four for each in flight; absent: each prompt once"
    )
    max_duration_ms: int | None = Field(
        None, ge=1, description="no query is issued after this time, whatever the count"
    )

    def planned(self, prompts: int, in_flight: int) -> int:
        """Return how many queries are issued at most, with so many in flight on the whole node."""
        if self.min_query_count is None and self.max_duration_ms is None:
            return prompts
        return max(self.min_query_count or prompts, LEAST_ROUNDS * in_flight)
