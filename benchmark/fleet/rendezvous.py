"""A start that all nodes keep: from round trips to clock offsets, and from those to one agreed time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster.drift import NodeFacts, find_drift
from benchmark.errors import InputError
from benchmark.files import first_fault, read_record, write_record
from benchmark.fleet.errors import Excluded
from benchmark.records import AgreedStart, Drift, Environment, ReadyNode, RunRecord
from benchmark.rundir import NODES, RUN_FILE, of_repeat
from benchmark.settings import ResolvedSettings

READY_FILE = "ready.json"
START_FILE = "start.json"

# What a node needs to get ready for a start that it was sent, and for the clocks.
LEAST_MARGIN_S = 0.5
MOST_MARGIN_S = 120.0
GRACE_S = 180
# What agreeing on a further repeat, and telling all nodes, may take of the time limit on the node.
TELLING_S = 60

# What a node may say of itself: sixteen GPUs with many processes on each take a tenth.
MAX_FACTS_BYTES = 2**18

_REASONS = TypeAdapter(dict[str, str])

# One round trip: the controller's clock before, the node's, the controller's after; nanoseconds since 1970.
RoundTrip = tuple[int, int, int]


def measures(asked: ResolvedSettings) -> bool:
    """Return whether the node measures queries: one that only judges answers has no window that could be shared."""
    return asked.profile.measures_queries


def patience_s(nodes: Collection[ResolvedSettings]) -> int | None:
    """Return how long a node that is ready waits for the time of its start, in seconds; None: nobody waits.

    Longer than the controller waits for the last node: that one was launched later, may have to be stopped, and then
    all have to be told. One node that measures has nobody to wait for.
    """
    waiting = [asked.settings.benchmark_sync_timeout_s for asked in nodes if measures(asked)]
    if len(waiting) < 2 or not all(asked.settings.benchmark_sync_start for asked in nodes):
        return None
    return max(waiting) + GRACE_S + len(nodes)


def turns_s(nodes: Collection[ResolvedSettings]) -> int:
    """Return how long the turns of all nodes may take, in seconds; 0 where none measures alone.

    A turn that takes longer than a whole run may has hung, and is ended.
    """
    taking = [asked.settings for asked in nodes if measures(asked) and asked.settings.benchmark_solo_first]
    return sum(settings.benchmark_timeout_s for settings in taking) if patience_s(nodes) is not None else 0


def repeats_s(nodes: Collection[ResolvedSettings]) -> int:
    """Return how long measurements after the first may take, in seconds: benchmark_timeout_s each, of the slowest."""
    repeating = [asked for asked in nodes if measures(asked)]
    each = ((one.measurements - 1) * (one.settings.benchmark_timeout_s + TELLING_S) for one in repeating)
    return max(each, default=0)


def limit_on_node_s(asked: ResolvedSettings, nodes: Collection[ResolvedSettings]) -> int | None:
    """Return the time limit of a run on its node, in seconds; None: benchmark_timeout_s.

    What a node waits for others, and their turns and repeats, is not taken from its own time. A node that hangs is
    stopped by the controller before that, or ends by this where the controller is gone.
    """
    if not measures(asked):
        return None
    more_s = (patience_s(nodes) or 0) + turns_s(nodes) + repeats_s(nodes)
    return asked.settings.benchmark_timeout_s + more_s if more_s else None


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


def margin_s(telling_s: float) -> float:
    """Return how far ahead the start has to be for every node to hear of it, in seconds.

    `telling_s`: how long it took, just before, to say something to each and to have heard from each. A start is no
    longer word. The rest is for what a node does once it knows: some milliseconds of processor time, which nodes that
    share a machine need one after the other.
    """
    return min(LEAST_MARGIN_S + 5 * telling_s, MOST_MARGIN_S)


def read_facts(text: str) -> Environment:
    """Return what a node that is ready says it is. Raises InputError, one sentence, for what is no such record."""
    if len(text) > MAX_FACTS_BYTES:
        raise InputError(f"The node's report on itself is larger than {MAX_FACTS_BYTES >> 10} KiB; refused.")
    try:
        return Environment.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"The node's report on itself is invalid: {first_fault(error, 'the whole')}.") from None


def read_unreached(text: str) -> dict[str, str]:
    """Return what a node says of those that it cannot reach: why, by their names. Raises Excluded for anything else."""
    try:
        return _REASONS.validate_json(text)
    except ValidationError:
        raise Excluded("The node's report on the other nodes' ports is invalid.") from None


def agree(
    run_dir: Path,
    ready: Iterable[str],
    telling_s: float,
    *,
    drift_fails: bool = False,
    attempt: int = 1,
    repeat: int = 1,
) -> AgreedStart:
    """Return the one start of a repeat in this attempt, for the nodes that are ready, and write it down.

    With `drift_fails`, nodes that are no longer alike are not among them, and `drift` says why.
    """
    drift = drift_of_ready(run_dir) if drift_fails else ()
    stopped = {name for one in drift for names in one.values.values() for name in names}
    margin = margin_s(telling_s)
    start = AgreedStart(
        attempt=attempt,
        start_unix_ns=time.time_ns() + int(margin * 1e9),
        margin_s=margin,
        nodes=tuple(sorted(node for node in ready if node not in stopped)),
        drift=drift,
    )
    write_record(run_dir / of_repeat(START_FILE, repeat), start)
    return start


def drift_of_ready(run_dir: Path) -> tuple[Drift, ...]:
    """Return in which facts the nodes differ that are ready, or were in an earlier attempt.

    A node that is measured later has to be like those that were measured before.
    """
    asked = read_record(run_dir / RUN_FILE, RunRecord).nodes
    facts = {
        node.node: NodeFacts(node.environment, asked[node.node].settings, node)
        for node in _ready(run_dir)
        if node.environment
    }
    return find_drift(facts)


def _ready(run_dir: Path) -> list[ReadyNode]:
    return [read_record(file, ReadyNode) for file in sorted((run_dir / NODES).glob(f"*/{READY_FILE}"))]
