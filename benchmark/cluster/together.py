"""A start that all nodes keep: from round trips to clock offsets, and from those to one agreed time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from benchmark.files import read_record, write_record
from benchmark.records import AgreedStart, ReadyNode
from benchmark.rundir import NODES
from benchmark.settings import ResolvedSettings

READY_FILE = "ready.json"
START_FILE = "start.json"

# Telling every node takes less than launching the module on every node did (0.7 of it, tried with 20 nodes), which was
# measured in this very run; and this on top, for the last node to hear of it.
LEAST_MARGIN_S = 0.5
MOST_MARGIN_S = 120.0
GRACE_S = 180

# One round trip: the controller's clock before, the node's, the controller's after; nanoseconds since 1970.
RoundTrip = tuple[int, int, int]


def measures(asked: ResolvedSettings) -> bool:
    """Tell whether the node measures at all: one that only judges answers has no window that could be shared."""
    return asked.profile.accuracy != "only"


def patience_s(nodes: Collection[ResolvedSettings]) -> int | None:
    """Return how long a node that is ready waits to be told when to start, in seconds; None: nobody waits.

    Longer than the controller waits for the last node: that one was launched later, may have to be stopped, and then
    all have to be told. One node that measures has nobody to wait for.
    """
    waiting = [asked.settings.benchmark_sync_timeout_s for asked in nodes if measures(asked)]
    if len(waiting) < 2 or not all(asked.settings.benchmark_sync_start for asked in nodes):
        return None
    return max(waiting) + GRACE_S + len(nodes)


def clock_offset(trips: Iterable[RoundTrip]) -> tuple[int, int]:
    """Return by how much the node's clock is ahead of the controller's, and the uncertainty, in nanoseconds.

    The node read its clock at some time within the round trip: the middle of the shortest one is wrong by half of it
    at most. Raises ValueError where there is no trip, or none in which the controller's clock went forward.
    """
    sound = [trip for trip in trips if trip[2] >= trip[0]]
    if not sound:
        raise ValueError("no round trip was measured")
    sent, node, received = min(sound, key=lambda trip: trip[2] - trip[0])
    return node - (sent + received) // 2, (received - sent + 1) // 2


def margin_s(launched_unix_ns: Sequence[int]) -> float:
    """Return how far ahead the start has to be for every node to hear of it, from when each was launched."""
    spread_s = (max(launched_unix_ns) - min(launched_unix_ns)) / 1e9 if launched_unix_ns else 0.0
    return min(LEAST_MARGIN_S + spread_s, MOST_MARGIN_S)


def agreed_start(run_dir: Path) -> AgreedStart:
    """Return the one start of the run: who asks first makes it, for all nodes that are ready then.

    The workers of a play are processes that share only the run's directory; they come at about the same time.
    """
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path = run_dir / START_FILE
        if path.exists():
            return read_record(path, AgreedStart)
        ready = [read_record(file, ReadyNode) for file in sorted((run_dir / NODES).glob(f"*/{READY_FILE}"))]
        margin = margin_s([node.launched_unix_ns for node in ready])
        start = AgreedStart(
            start_unix_ns=time.time_ns() + int(margin * 1e9),
            margin_s=margin,
            nodes=tuple(node.node for node in ready),
        )
        write_record(path, start)
        return start
    finally:
        os.close(descriptor)
