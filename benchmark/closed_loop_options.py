"""Options of the closed loop in a profile. The controller uses them too, to refuse invalid profiles."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from benchmark.profiles import MOST_IN_FLIGHT

# Least queries per query in flight if the profile does not set their number: the first ones all begin at once, and the
# last ones end in a system that empties.
LEAST_ROUNDS = 4


class Options(BaseModel):
    """The profile's `scenario_options`. The last two replace the profile's `samples`."""

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
        """Return the largest number of queries, for `concurrency` in flight on the whole node."""
        if self.min_query_count is None and self.max_duration_ms is None:
            return prompts
        return max(self.min_query_count or prompts, LEAST_ROUNDS * in_flight)
