"""Agree on one start for all nodes: from round trips to clock offsets, and from those to one time."""

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

# For what a node does before a start, and for the clocks' uncertainty.
LEAST_MARGIN_S = 0.5
MOST_MARGIN_S = 120.0
GRACE_S = 180
# The share of the time limit on the node for agreeing on a further repeat and telling all nodes.
TELLING_S = 60

# The limit of a node's report on itself: sixteen GPUs with many processes on each take a tenth.
MAX_FACTS_BYTES = 2**18

_REASONS = TypeAdapter(dict[str, str])

# One round trip: the controller's clock before, the node's, the controller's after; nanoseconds since 1970.
RoundTrip = tuple[int, int, int]


def measures(asked: ResolvedSettings) -> bool:
    """Return whether the node measures queries: one that only judges answers has no window to share."""
    return asked.profile.measures_queries


def patience_s(nodes: Collection[ResolvedSettings]) -> int | None:
    """Return how long a ready node waits for its start time, in seconds; None: no node waits.

    This is longer than the controller waits for the last node: that one was launched later, may have to be stopped, and
    then all must be told. A single measuring node does not wait.
    """
    waiting = [asked.settings.benchmark_sync_timeout_s for asked in nodes if measures(asked)]
    if len(waiting) < 2 or not all(asked.settings.benchmark_sync_start for asked in nodes):
        return None
    return max(waiting) + GRACE_S + len(nodes)


def turns_s(nodes: Collection[ResolvedSettings]) -> int:
    """Return how long the turns of all nodes may take, in seconds; 0 if none measures alone.

    A turn that exceeds the limit of a whole run has hung, and is ended.
    """
    taking = [asked.settings for asked in nodes if measures(asked) and asked.settings.benchmark_solo_first]
    return sum(settings.benchmark_timeout_s for settings in taking) if patience_s(nodes) is not None else 0


def repeats_s(nodes: Collection[ResolvedSettings]) -> int:
    """Return how long measurements after the first may take, in seconds: benchmark_timeout_s each, for the slowest."""
    repeating = [asked for asked in nodes if measures(asked)]
    each = ((one.measurements - 1) * (one.settings.benchmark_timeout_s + TELLING_S) for one in repeating)
    return max(each, default=0)


def limit_on_node_s(asked: ResolvedSettings, nodes: Collection[ResolvedSettings]) -> int | None:
    """Return the time limit of a run on its node, in seconds; None: benchmark_timeout_s.

    It adds the time that a node waits for others, and their turns and repeats. The controller stops a node that hangs
    before that; this limit ends it if the controller is gone.
    """
    if not measures(asked):
        return None
    more_s = (patience_s(nodes) or 0) + turns_s(nodes) + repeats_s(nodes)
    return asked.settings.benchmark_timeout_s + more_s if more_s else None


def clock_offset(trips: Iterable[RoundTrip]) -> tuple[int, int]:
    """Return how far the node's clock is ahead of the controller's, and the uncertainty, in nanoseconds.

    The node read its clock at some time within the round trip: the middle of the shortest trip is off by half of it at
    most. Raises ValueError if there is no trip, or none in which the controller's clock went forward.
    """
    sound = [trip for trip in trips if trip[2] >= trip[0]]
    if not sound:
        raise ValueError("no round trip was measured")
    sent, node, received = min(sound, key=lambda trip: trip[2] - trip[0])
    return node - (sent + received) // 2, (received - sent + 1) // 2


def margin_s(telling_s: float) -> float:
    """Return how far ahead the start must be for every node to learn of it in time, in seconds.

    `telling_s`: how long it took just before to send all nodes a message of similar length and to get all answers. The
    rest is for what a node does once it knows the start: some milliseconds of processor time, one after the other for
    nodes that share a machine.
    """
    return min(LEAST_MARGIN_S + 5 * telling_s, MOST_MARGIN_S)


def read_facts(text: str) -> Environment:
    """Return the facts that a ready node reports of itself. Raises InputError, one sentence, if they are invalid."""
    if len(text) > MAX_FACTS_BYTES:
        raise InputError(f"The node's report on itself is larger than {MAX_FACTS_BYTES >> 10} KiB; refused.")
    try:
        return Environment.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"The node's report on itself is invalid: {first_fault(error, 'the whole')}.") from None


def read_unreached(text: str) -> dict[str, str]:
    """Return why a node cannot reach others, by their names. Raises Excluded if its report is invalid."""
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
    """Return the start of a repeat in this attempt for the nodes that are ready, and write it to its file.

    With `drift_fails`, nodes that differ from the others are left out, and the start's `drift` says why.
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
    """Return how nodes differ that are ready now or were in an earlier attempt.

    A node that is measured later must be like those that were measured before.
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
