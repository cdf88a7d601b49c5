"""Loads, and the results of a ladder of them: a point for each, and the curve through these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.cost import Cost
from benchmark.records.goodput import Goodput


class Load(Record):
    """The load of a measurement: queries in flight, or queries per second."""

    concurrency: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="queries in flight on each GPU (on the CPU: replica). There is then no schedule: times count from "
        "when the query before was answered",
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(None, description="queries per second of the whole node")
    share: Annotated[float, Field(gt=0)] | None = Field(None, description="share of the rate that a burst reaches")

    @model_validator(mode="after")
    def _one(self) -> Load:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a load is either a concurrency or a rate")
        return self

    @property
    def step(self) -> float:
        """The step's value in the profile's ladder."""
        return self.concurrency or self.share or 0.0


Place = Annotated[
    Literal["GPU", "replica"],
    Field(description="what queries in flight and tokens_per_s_per_gpu are per: on the CPU, a replica"),
]


class CurvePoint(Record):
    """One step of a sweep: of a node, or of all counted nodes of a group that measured it together."""

    step: float = Field(description="queries in flight on each GPU; or the share of the rate that a burst reaches")
    nodes: Count = Field(description="nodes that it covers")
    queries: Count = Field(description="answered queries")
    failed: Count = 0
    qps: float | None = Field(description="until the last query was issued, while the load was that of the step")
    tokens_per_s: float | None = Field(description="output tokens, in the same time")
    tokens_per_s_per_gpu: float | None = Field(description="on the CPU: per replica")
    tokens_per_s_per_user: float | None = Field(description="1000 / P50 of TPOT: how fast an answer is read")
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_ms: float | None = None
    tpot_p99_ms: float | None = None
    tokens_per_joule: float | None = None
    cost: Cost | None = Field(None, description="under this load; absent: a node has no benchmark_cost_per_gpu_hour")
    goodput: Goodput | None = Field(None, description="absent: no limits of TTFT or TPOT, or undefined for a node")
    confident: bool = Field(description="whether there are enough samples for a P99 at 99 % confidence")
    valid: bool = Field(description="whether every node's checks passed in it")
    on_front: bool = Field(False, description="whether no other step has both more tokens/s per GPU and per user")


class Crossing(Record):
    """Where on the ladder a limit is exceeded."""

    metric: Name
    limit: float
    within: float | None = Field(description="the last step that meets it, below the first that does not")
    beyond: float | None = Field(description="the first step that exceeds it; absent: every step meets it")
    at: float | None = Field(description="interpolated linearly between the two")


class Curve(Record):
    """The steps of a sweep, lowest load first, and their combined results."""

    of: Name = Field(description="a node's name; or the label of a group")
    kind: Literal["node", "group"]
    group: Count | None = Field(None, description="index into groups; absent: the node is not counted")
    points: tuple[CurvePoint, ...]
    knee: float | None = Field(
        None,
        description="the load at which the highest rate would be reached, were answers under it as fast as in the "
        "first step: from there on queries wait for each other. Absent: tokens/s still grew, or there is one point",
    )
    most_tokens_per_s_per_gpu: float | None = Field(None, description="the highest of the points")
    enough: float | None = Field(None, description="the lowest step within least_growth of the highest")
    crossings: tuple[Crossing, ...] = ()
    ended: Text = Field("", description="why there are no further steps")


class Curves(Record):
    """The results of a sweep: its curves, those of groups first. All other figures of the run are of one step."""

    by: Literal["concurrency", "rate"]
    per: Place = "GPU"
    chosen: float | None = Field(
        description="the least step, of those that all counted nodes measured, within least_growth of the most "
        "tokens/s; absent: no node counts"
    )
    curves: tuple[Curve, ...]
