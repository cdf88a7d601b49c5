"""One query in flight on each GPU: the next one is scheduled the moment the last one completed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload
from benchmark.node.users import run_users


class Scenario(interfaces.Scenario):
    """The closed loop. Its QPS is what users who never pause would see, one for each GPU, not what could be served."""

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the queries, each when one before it has ended; for accuracy, each prompt once."""
        planned = len(workload.prompts) if conditions.purpose == "accuracy" else workload.samples
        loop = _Loop(workload, issuer, iter(range(planned or len(workload.prompts))))
        run_users(conditions.replicas, loop.run)
        return Outcome()


class _Loop:
    """Users who take the next query from one list."""

    def __init__(self, workload: Workload, issuer: Issuer, indexes: Iterator[int]) -> None:
        self._workload = workload
        self._issuer = issuer
        self._indexes = indexes
        self._issuing = threading.Lock()

    def run(self, stopped: threading.Event) -> None:
        """Be one user."""
        scheduled_ns = interfaces.now_ns()
        while not stopped.is_set():
            # Engines hear of one query at a time, as from one user: tokenizers may be in use by one thread alone.
            with self._issuing:
                index = next(self._indexes, None)
                if index is None:
                    return
                query = self._workload.query(index)
                self._issuer.issue(query, scheduled_ns)
            scheduled_ns = self._issuer.wait(query)
