"""The progress of all nodes: one screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cluster.names import natural
from benchmark.progress import Progress, clock, describe
from benchmark.text.columns import clean, columns, left
from benchmark.words import plural

WAITING, DONE, FAILED = "waiting", "done", "failed"
ENDED = (DONE, FAILED)
# An idle node is not slow.
_AT_REST = (WAITING, *ENDED)
# Up to this many nodes that enter the same stage at once have a line each; more share one.
EACH = 3
NAMES = 5
# A stage that took fewer seconds is not worth a line.
BRIEF_S = 2.0
# No run has more stages; bounds what a node may report.
MOST_STAGES = 50
HEADER = ("NODE", "STAGE", "QUERIES", "QPS", "LEFT")
# Widths of the columns beside the node's name and its stage: of the last three of the header.
WIDTHS = (16, 10, 10)
STAGES = (12, 28)


@dataclass
class Seen:
    """What was last reported of a node, and when, by `time.monotonic`."""

    progress: Progress
    at: float
    own: bool = False
    """Whether the node's run reported it."""
    since: float = 0.0
    """When the stage began."""

    def left_s(self, now: float) -> float | None:
        """Return the time left of the stage; None if it is unknown, or should be over."""
        if self.progress.left_s is None:
            return None
        left_s = self.progress.left_s - (now - self.at)
        return left_s if left_s >= 0 else None


class Fleet:
    """All nodes of the play. The caller passes times in, so that nothing here depends on a clock."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        """In natural order of their names."""
        self._seen: dict[str, Seen] = {}
        # In order of first appearance, which is the order of the work.
        self._rank: dict[str, int] = {WAITING: 0}
        self._changed: dict[str, str] = {}
        # The lines of the last call, and since when each has been unchanged.
        self._said: dict[str, float] = {}

    def put(self, node: str, state: str, now: float) -> None:
        """Record what the controller knows of a node, which may be new; the node waits once a stage is over."""
        before, detail = self._seen.get(node), ""
        if state == WAITING and before is not None and before.progress.state not in _AT_REST:
            detail = f"{before.progress.stage} done"
            if (took_s := now - before.since) >= BRIEF_S:
                self._changed[node] = f"{detail}, {clock(took_s)}"
        self._take(node, Seen(Progress(state, detail=detail), now, since=now))

    def report(self, node: str, progress: Progress, now: float) -> None:
        """Record what a node's run reports; reports after its end are stale and ignored."""
        before = self._seen.get(node)
        if before is not None and before.progress.state in ENDED:
            return
        another = before is None or before.progress.state != progress.state
        first_detail = progress.detail and not (before and before.progress.detail)
        if another or first_detail:
            self._changed[node] = f"{progress.state}: {progress.detail}" if progress.detail else progress.state
        since = now if before is None or another else before.since
        self._take(node, Seen(progress, now, own=not progress.detail, since=since))

    def runs(self, node: str) -> bool:
        """Return whether the node has a run that has reported and not ended."""
        seen = self._seen.get(node)
        return seen is not None and seen.own and seen.progress.state not in ENDED

    def _take(self, node: str, seen: Seen) -> None:
        if node not in self._seen:
            insort(self.nodes, node, key=natural)
        self._seen[node] = seen
        if len(self._rank) < MOST_STAGES:
            self._rank.setdefault(seen.progress.stage, len(self._rank))

    def changes(self) -> list[str]:
        """Return a line for every node that changed its stage since the last call; many share one line."""
        by_state: dict[str, list[str]] = {}
        for node in self.nodes:
            if node in self._changed:
                by_state.setdefault(self._changed[node], []).append(node)
        self._changed = {}
        lines = []
        for state, nodes in by_state.items():
            if len(nodes) <= EACH:
                lines += [f"{node}: {state}" for node in nodes]
            else:
                lines.append(f"{len(nodes)} nodes: {state} ({_some(nodes)})")
        return [clean(line) for line in lines]

    def lines(self, now: float) -> list[str]:
        """Return a line for all nodes and, if they are few, one for each node within its stage.

        A line that has not changed since the last call says for how long.
        """
        known = [node for node in self.nodes if self._seen[node].progress.detail and not self._rests(node)]
        details = [clean(f"{node}: {describe(self._seen[node].progress)}") for node in known[:EACH]]
        found = [self.summary(now), *details]
        self._said = {line: self._said.get(line, now) for line in found}
        return [line if since == now else f"{line} (for {clock(now - since)})" for line, since in self._said.items()]

    def _rests(self, node: str) -> bool:
        return self._seen[node].progress.state in _AT_REST

    def summary(self, now: float) -> str:
        """Return one line for all nodes: how many in which stage, their queries, rate, and the longest time left."""
        each = [self._seen[node] for node in self.nodes]
        counts = Counter(seen.progress.stage for seen in each)
        stages = sorted(counts, key=lambda stage: (self._rank.get(stage, MOST_STAGES), stage))
        text = f"{_count(len(self.nodes))}: {', '.join(f'{counts[stage]} {stage}' for stage in stages)}"
        at_it = [seen for seen in each if seen.progress.total]
        if at_it:
            text += f"; {sum(s.progress.done for s in at_it):,}/{sum(s.progress.total for s in at_it):,} queries"
        elif done := sum(seen.progress.done for seen in each):
            text += f"; {done:,} queries"
        if rates := [seen.progress.qps for seen in each if seen.progress.qps is not None]:
            text += f"; {math.fsum(rates):.2f} QPS"
        lefts = [seen.left_s(now) for seen in each if seen.progress.state not in _AT_REST and seen.progress.done]
        known = [left_s for left_s in lefts if left_s is not None]
        if known and len(known) == len(lefts):
            text += f"; {clock(max(known))} left"
        return clean(text)

    def screen(self, width: int, height: int, now: float) -> list[str]:
        """Return at most `height` lines of at most `width` columns: all nodes, or the slowest of them."""
        if not self.nodes:
            return []
        nodes = self.nodes
        room = max(1, height - 2)
        if len(nodes) > room:
            slowest = sorted(nodes, key=lambda node: self._slowness(node, now))[: room - 1]
            nodes = sorted(slowest, key=natural)
        name = min(max(columns(clean(node)) for node in [HEADER[0], *self.nodes]), max(8, width // 4)) + 2
        stage = min(max(STAGES[0], width - name - sum(WIDTHS)), STAGES[1])
        lines = [self.summary(now)]
        rows = [self._cells(node, now) for node in nodes]
        # A column that is empty for all nodes has no head.
        shown = [place for place in range(2, len(HEADER)) if any(cells[place] for cells in rows)]
        for cells in [HEADER, *rows]:
            line = left(cut(clean(cells[0]), name - 2), name)
            if any(cells[place] for place in shown):
                line += left(cut(clean(cells[1]), stage - 1), stage)
                line += "".join(cells[place].rjust(WIDTHS[place - 2]) for place in shown)
            else:
                line += clean(cells[1])
            lines.append(line)
        if len(nodes) < len(self.nodes):
            lines.append(f"and {len(self.nodes) - len(nodes)} more; shown are the slowest")
        return [cut(line, width) for line in lines[:height]]

    def _cells(self, node: str, now: float) -> tuple[str, str, str, str, str]:
        seen = self._seen[node]
        progress, left_s = seen.progress, seen.left_s(now)
        queries = (
            f"{progress.done:,}/{progress.total:,}" if progress.total else f"{progress.done:,}" if progress.done else ""
        )
        rate = "" if progress.qps is None else f"{progress.qps:.2f}"
        state = f"{progress.state}: {progress.detail}" if progress.detail else progress.state
        return node, state, queries, rate, "" if left_s is None else clock(left_s)

    def _slowness(self, node: str, now: float) -> tuple[bool, int, float, float]:
        """Return a sort key that puts the node that is furthest behind first."""
        seen = self._seen[node]
        share = seen.progress.done / seen.progress.total if seen.progress.total else float(seen.progress.done)
        return (
            seen.progress.state in _AT_REST,
            self._rank.get(seen.progress.stage, MOST_STAGES),
            share,
            -(seen.left_s(now) or 0.0),
        )


def cut(text: str, width: int) -> str:
    """Return clean text, cut to at most `width` columns."""
    while columns(text) > width:
        text = text[:-1]
    return text.rstrip()


def _count(nodes: int) -> str:
    return plural(nodes, "node")


def _some(nodes: Sequence[str]) -> str:
    rest = len(nodes) - NAMES
    return ", ".join(nodes[:NAMES]) + (f" and {rest} more" if rest > 0 else "")
