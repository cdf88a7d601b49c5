"""What a GPU's own memory and matrix rate allow at best, and how near to that a node's figures come.

Least time per output token: all weights that a token is multiplied with are read once, at the probe's memory read rate.
Most output tokens per second: two operations for each of these weights and each token, of prompts and answers alike, at
the rate of the probe's matrix product in the same precision.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.cluster.diagnosis.aspects import scenario_of
from benchmark.cluster.report.amounts import amount
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import NodeResult, NodeRow, Roofline
from benchmark.served import QUANTIZATION

# Bytes of a weight, by the precision that an engine reports.
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
MEMORY, MATRIX = "device_memory_read", "matrix_"
# Scenarios with one query in flight on a GPU: only in these does a step compute a single token.
ALONE = ("closed_loop", "SingleStream")


def roofline(node: LoadedNode) -> Roofline | None:
    """Return the limits of the node's GPUs and the share reached; None if weights or probes are unknown.

    The median GPU counts. A server's model is unknown, a mixture of experts does not tell which weights are read, and
    quantized weights do not tell their bytes.
    """
    result, metrics = node.result, node.metrics
    engine = result.engine if result else None
    if result is None or engine is None or metrics is None or engine.simulated:
        return None
    weights, size = engine.details.get("parameters_per_token"), BYTES.get(str(engine.details.get("dtype")))
    if not isinstance(weights, int) or weights <= 0 or size is None or result.probes is None:
        return None
    if QUANTIZATION in engine.details:
        return None
    read_gb_s = _median(result, MEMORY)
    rate = _median(result, f"{MATRIX}{engine.details['dtype']}")
    # Each GPU of a model spread over several reads its part.
    spread = engine.details.get("tensor_parallel", 1)
    parts = spread if isinstance(spread, int) and spread > 0 else 1
    least_ms = None if read_gb_s is None else weights * size / parts / (read_gb_s * 1e9) * 1e3
    most = None
    if rate is not None and metrics.output_tokens:
        per_token = 2 * weights * (metrics.input_tokens + metrics.output_tokens) / metrics.output_tokens
        most = rate * 1e12 / per_token
    if least_ms is None and most is None:
        return None
    tpot_ms = metrics.tpot_ms.p50 if metrics.tpot_ms else None
    tokens_per_s = None if metrics.tokens_per_s is None else metrics.tokens_per_s / engine.replicas
    return Roofline(
        weights=weights,
        weights_bytes=weights * size,
        memory_read_gb_s=read_gb_s,
        matrix_tflop_s=rate,
        alone=scenario_of(result) in ALONE,
        least_tpot_ms=least_ms,
        tpot_ms=tpot_ms,
        times_least_tpot=None if least_ms is None or tpot_ms is None else tpot_ms / least_ms,
        most_tokens_per_s=most,
        tokens_per_s=tokens_per_s,
        share_of_most_tokens=None if most is None or tokens_per_s is None else tokens_per_s / most,
    )


def roofline_words(rows: Sequence[NodeRow]) -> str:
    """Return in a line how near the nodes come to their own GPUs' limits; for several nodes, the range.

    One query at a time is compared with the memory; many in flight with the matrix rate, as each token then waits for
    the others' work in the same step, and its time says nothing about the memory.
    """
    known = [row.roofline for row in rows if row.roofline]
    times = [one.times_least_tpot for one in known if one.alone and one.times_least_tpot is not None]
    if times:
        tpots = [one.tpot_ms for one in known if one.alone and one.tpot_ms is not None]
        least = [one.least_tpot_ms for one in known if one.alone and one.least_tpot_ms is not None]
        return (
            f"TPOT {_range(tpots)} ms: {_range(times)} x the least time that a GPU's own memory allows "
            f"({_range(least)} ms)"
        )
    shares = [100 * one.share_of_most_tokens for one in known if not one.alone and one.share_of_most_tokens is not None]
    if shares:
        most = [one.most_tokens_per_s for one in known if not one.alone and one.most_tokens_per_s is not None]
        return (
            f"{_range(shares)} % of the most tokens/s that a GPU's own matrix rate allows ({_range(most)}) with these "
            "prompts and answers; attention and sampling always add to that"
        )
    return ""


def _median(result: NodeResult, figure: str) -> float | None:
    gpus = result.probes.gpus if result.probes else ()
    values = [gpu.figures[figure].value for gpu in gpus if figure in gpu.figures]
    value = statistics.median(values) if values else 0.0
    return value if value > 0 else None


def _range(values: Sequence[float]) -> str:
    lowest, highest = amount(min(values)), amount(max(values))
    return lowest if lowest == highest else f"{lowest} to {highest}"
