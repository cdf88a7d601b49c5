"""A fixed number of queries in flight on each GPU: the next one is due as soon as the previous one has completed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

from benchmark.closed_loop_options import Options
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload
from benchmark.node.options import check
from benchmark.node.users import run_users


class Scenario(interfaces.Scenario):
    """The closed loop. Its QPS is what users without pauses would see, not what could be served.

    It has no schedule: a query is due when its user's previous one has ended, so that a slow system gets fewer queries.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for unknown options."""
        self.options = check(Options, options, "scenario_options of the closed loop")

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue each query when one before it has ended; for accuracy, each prompt once."""
        users = (conditions.concurrency or self.options.concurrency) * conditions.replicas
        planned, most_ms, until_ns = len(workload.prompts), None, None
        if conditions.purpose != "accuracy":
            planned, most_ms = workload.samples or self.options.planned(planned, users), self.options.max_duration_ms
        conditions.begins(0.0, planned, math.inf if most_ms is None else most_ms / 1000)
        if most_ms is not None:
            until_ns = interfaces.now_ns() + most_ms * 1_000_000
        run_users(users, _Loop(workload, issuer, iter(range(planned)), until_ns).run)
        return Outcome()


class _Loop:
    """Users who take their queries from one list, until it is empty or `until_ns` has passed."""

    def __init__(self, workload: Workload, issuer: Issuer, indexes: Iterator[int], until_ns: int | None) -> None:
        self._workload = workload
        self._issuer = issuer
        self._indexes = indexes
        self._until_ns = until_ns
        self._issuing = threading.Lock()

    def run(self, stopped: threading.Event) -> None:
        """Run one user."""
        scheduled_ns = interfaces.now_ns()
        while not stopped.is_set() and (self._until_ns is None or scheduled_ns < self._until_ns):
            # Engines get one query at a time, as from one user: tokenizers may not be thread-safe.
            with self._issuing:
                index = next(self._indexes, None)
                if index is None:
                    return
                query = self._workload.query(index)
                self._issuer.issue(query, scheduled_ns)
            scheduled_ns = self._issuer.wait(query)
