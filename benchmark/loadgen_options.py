"""Options of LoadGen's scenarios in a profile. The controller uses them too, to refuse invalid profiles."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["performance", "accuracy", "probe", "burst", "audit"]


# Seeds of each round of MLPerf Inference, by LoadGen's names: for the choice of samples, for their order, and for the
# arrivals in Server.
SEEDS = {
    "5.1": {
        "qsl_rng_seed": 1780908523862526354,
        "sample_index_rng_seed": 14771362308971278857,
        "schedule_rng_seed": 18209322760996052031,
    },
    "6.0": {
        "qsl_rng_seed": 2465351861681999779,
        "sample_index_rng_seed": 14276810075590677512,
        "schedule_rng_seed": 3936089224930324775,
    },
    "6.1": {
        "qsl_rng_seed": 2085463073848966840,
        "sample_index_rng_seed": 2747215439041700203,
        "schedule_rng_seed": 16159082839903944936,
    },
}
# LoadGen's defaults if a configuration does not set more.
LEAST_QUERIES = 100
# LoadGen plans twice the SingleStream queries that fit its minimum duration at the expected latency, and issues all of
# them. With a latency set this much higher, it plans only a third more than needed, a reserve because queries differ
# and a warm-up has few of them.
SINGLE_STREAM_ROOM = 1.5
# LoadGen plans queries for this many times its minimum duration, at the expected rate.
PLANNED = {"Server": 1.0, "Offline": 1.1, "SingleStream": 2 / SINGLE_STREAM_ROOM}
# The models for which LoadGen's own configuration issues all prompts equally often.
EQUALLY = frozenset({"llama3_1-8b", "llama3_1-8b-interactive", "llama3_1-8b-edge"})


class Options(BaseModel):
    """The profile's `scenario_options`. None means LoadGen's own value; others are written to user.conf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    scenario: Literal["Server", "Offline", "SingleStream"] = Field(description="MLPerf's name of the scenario")
    model: str = Field(
        "llama3_1-8b", pattern=r"^[\w.-]+$", description="the model whose limits in LoadGen's configuration apply"
    )
    min_duration_ms: int | None = Field(None, ge=0, description="shortest time during which queries are issued")
    max_duration_ms: int | None = Field(None, ge=0, description="longest time during which queries are issued")
    min_query_count: int | None = Field(None, ge=1, description="fewest queries")
    max_query_count: int | None = Field(None, ge=1, description="most queries")
    ttft_latency_ms: int | None = Field(None, ge=1, description="Server: P99 limit of the time to the first token")
    tpot_latency_ms: int | None = Field(None, ge=1, description="Server: P99 limit of the time per output token")
    target_latency_ms: float | None = Field(
        None, gt=0, description="SingleStream: expected latency; sets how many queries are generated"
    )
    probe_duration_ms: int = Field(60_000, ge=1, description="shortest duration of one probe of the peak search")
    probe_query_count: int = Field(64, ge=1, description="fewest queries of one probe")
    burst_query_count: int = Field(256, ge=1, description="queries issued at once to find where the search begins")

    def of(self, purpose: Purpose) -> Options:
        """Return LoadGen's options for a run of that kind."""
        changes: dict[str, Any] = {}
        if purpose == "probe":
            changes = {"min_duration_ms": self.probe_duration_ms, "min_query_count": self.probe_query_count}
        elif purpose == "burst":
            count = self.burst_query_count
            changes = {"scenario": "Offline", "min_duration_ms": 0, "min_query_count": count, "max_query_count": count}
        return self.model_copy(update=changes)

    def expecting(self, expected_ms: float | None) -> Options:
        """Return the options with an expected latency for SingleStream, if none is set."""
        if self.scenario != "SingleStream" or self.target_latency_ms is not None or not expected_ms:
            return self
        return self.model_copy(update={"target_latency_ms": round(expected_ms * SINGLE_STREAM_ROOM, 3)})

    def least_queries(self, target_qps: float, least_s: float) -> int | None:
        """Return the minimum number of queries to set; None: LoadGen's own.

        For Server it is that of every submission if the option's number arrives within `least_s` anyway: arrivals are
        random, and their number is almost never more than five standard deviations below its mean.
        """
        wanted = self.min_query_count
        if wanted is None or self.scenario != "Server" or wanted <= LEAST_QUERIES:
            return wanted
        coming = target_qps * least_s
        return LEAST_QUERIES if coming - 5 * math.sqrt(coming) >= wanted else wanted

    def issued(self, expected: float, prompts: int, equally: bool) -> int:
        """Return how many queries LoadGen issues; `expected`: the number that arrives in the time that it plans for.

        `equally`: it issues each of the `prompts` equally often, so that there are at least as many queries.
        """
        least = max(self.min_query_count or LEAST_QUERIES, math.ceil(expected))
        planned = math.ceil(least / prompts) * prompts if equally else least
        return planned if self.max_query_count is None else min(planned, self.max_query_count)

    def user_conf(self, target_qps: float, prompts: int, performance_prompts: int, least_s: float) -> str:
        """Return user.conf: `target_qps` in queries per second, `prompts` in the dataset.

        `least_s`: LoadGen's minimum duration if the options do not set it.
        """
        least_s = least_s if self.min_duration_ms is None else self.min_duration_ms / 1000
        given: dict[str, Any] = {
            "min_duration": self.min_duration_ms,
            "max_duration": self.max_duration_ms,
            "min_query_count": self.least_queries(target_qps, least_s),
            "max_query_count": self.max_query_count,
            "ttft_latency": self.ttft_latency_ms,
            "tpot_latency": self.tpot_latency_ms,
            "target_latency": self.target_latency_ms if self.scenario == "SingleStream" else None,
            "target_qps": target_qps if self.scenario != "SingleStream" else None,
            # LoadGen trusts its configuration even if the dataset is smaller.
            "performance_sample_count_override": prompts if prompts != performance_prompts else None,
        }
        lines = [f"{self.model}.{self.scenario}.{key} = {v}" for key, v in given.items() if v is not None]
        return "\n".join(["# What differs from LoadGen's own configuration for the model.", *lines, ""])
