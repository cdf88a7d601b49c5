"""One query in flight on each GPU: the next one is scheduled the moment the last one completed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload


class Scenario(interfaces.Scenario):
    """The closed loop. Its QPS is what users who never pause would see, one for each GPU, not what could be served."""

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the queries, each when one before it has ended; for accuracy, each prompt once."""
        planned = len(workload.prompts) if conditions.purpose == "accuracy" else workload.samples
        loop = _Loop(workload, issuer, iter(range(planned or len(workload.prompts))))
        if conditions.replicas == 1:
            loop.run()
        else:
            loop.run_several(conditions.replicas)
        return Outcome()


class _Loop:
    """Users who take the next query from one list."""

    def __init__(self, workload: Workload, issuer: Issuer, indexes: Iterator[int]) -> None:
        self._workload = workload
        self._issuer = issuer
        self._indexes = indexes
        self._issuing = threading.Lock()
        self._stopped = False

    def run(self) -> None:
        """Be one user."""
        scheduled_ns = interfaces.now_ns()
        while not self._stopped:
            # Engines hear of one query at a time, as from one user: tokenizers may be in use by one thread alone.
            with self._issuing:
                index = next(self._indexes, None)
                if index is None:
                    return
                query = self._workload.query(index)
                self._issuer.issue(query, scheduled_ns)
            scheduled_ns = self._issuer.wait(query)

    def run_several(self, users: int) -> None:
        """Be so many users; raises what the first raised that could not go on."""
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def user() -> None:
            try:
                self.run()
                ended.put(None)
            except BaseException as error:  # raised again where it is waited for
                ended.put(error)

        # Daemons, and waited for here, where a signal is heard: a user may wait for an answer that never comes.
        for number in range(users):
            threading.Thread(target=user, name=f"user-{number}", daemon=True).start()
        try:
            for _ in range(users):
                if (error := ended.get()) is not None:
                    raise error
        finally:
            self._stopped = True
