"""Samples of a queue whose rate is known, and the files of nodes that measured a ladder of loads before one."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.records import Load, NodeResult, Repeat, Sample
from benchmark.settings import ResolvedSettings
from tests.unit.building import asked, result_of, write_node

S = 1_000_000_000
TOKENS = 64
LADDER = (1, 2, 4, 8, 16)


def sample(index: int, issued_ns: int, began_ns: int, completed_ns: int) -> Sample:
    """Return a sample whose answer came evenly from when it was begun, its first token after a tenth of that."""
    return Sample(
        index=index,
        prompt_id="p",
        scheduled_ns=issued_ns,
        issued_ns=issued_ns,
        first_token_ns=began_ns + (completed_ns - began_ns) // 10,
        completed_ns=completed_ns,
        output_tokens=TOKENS,
        token_ids=tuple(range(TOKENS)),
    )


def queue(users: int, servers: int, services_ns: Sequence[int]) -> list[Sample]:
    """Return what a closed loop of so many users gives before so many servers, one service for each query."""
    free, due = [0] * servers, [0] * users
    samples = []
    for index, service_ns in enumerate(services_ns):
        issued = heapq.heappop(due)
        began = max(issued, heapq.heappop(free))
        heapq.heappush(free, began + service_ns)
        heapq.heappush(due, began + service_ns)
        samples.append(sample(index, issued, began, began + service_ns))
    return samples


def sweeping(
    ladder: Sequence[int] = LADDER, limits: Sequence[dict[str, Any]] = (), **settings: Any
) -> ResolvedSettings:
    """Return settings of a sweep over these concurrencies."""
    profile = {
        "samples": None,
        "engine": "simulated",
        "engine_options": {},
        "fallback_engine": "",
        "limits": [{"metric": "queries.failed", "at_most": 0}],
        "sweep": {"concurrency": list(ladder), "limits": list(limits)},
    }
    return asked(profile=profile, **settings)


def write_sweep(
    run_dir: Path,
    node: str,
    resolved: ResolvedSettings,
    steps: dict[int, list[Sample]],
    ended: str = "It ended.",
    **changes: Any,
) -> Path:
    """Write the files of a node that measured these steps, by their concurrency; return its directory."""
    (first, samples), *later = steps.items()
    repeats = []
    for number, (load, each) in enumerate(later, start=2):
        made = result_of(node, resolved, each)
        fields = {name: getattr(made, name) for name in ("window", "metrics", "verdict")}
        repeats.append(Repeat.model_validate({"number": number, "load": Load(concurrency=load), **fields}))
    result = result_of(node, resolved, samples, load=Load(concurrency=first), sweep_ended=ended)
    result = NodeResult.model_validate({**dict(result), "repeats": repeats, **changes})
    return write_node(run_dir, result, samples, [each for _, each in later])
