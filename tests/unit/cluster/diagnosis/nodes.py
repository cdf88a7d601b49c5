"""Nodes for the diagnosis: what their samples give, and what else is known of them."""

from __future__ import annotations

from typing import Any

from benchmark import metrics
from benchmark.cluster.results.load import LoadedNode, Times
from benchmark.columns import Columns
from benchmark.records import Gpu, GpuTelemetry, Telemetry
from tests.unit.building import GPU, HOST, asked, closed_loop, result_of


def node(name: str, latency_ms: float = 1800, count: int = 20, **changes: Any) -> LoadedNode:
    """Return a node whose queries all took `latency_ms`."""
    samples = closed_loop([latency_ms] * count)
    result = result_of(name, asked(count), samples, **changes)
    return LoadedNode(name, result, metrics.compute(Columns.of(samples), count), Times.of(Columns.of(samples)))


def watched(**gpu: Any) -> Telemetry:
    """Return telemetry of one GPU; fields that are Telemetry's own go there."""
    own = {name: gpu.pop(name) for name in list(gpu) if name in Telemetry.model_fields}
    return Telemetry.model_validate(
        {"ticks": 10, "interval_ms": 100, "cost_percent": 0.1, "gpus": (GpuTelemetry(index=0, **gpu),), **own}
    )


def with_gpu(**fields: Any) -> dict[str, Any]:
    """Return the change of a result that gives the node's GPU other facts."""
    return {"environment": HOST.model_copy(update={"gpus": (Gpu.model_validate({**GPU.model_dump(), **fields}),)})}


def host(**fields: Any) -> dict[str, Any]:
    """Return the change of a result that gives the node itself other facts."""
    return {"environment": HOST.model_copy(update=fields)}
