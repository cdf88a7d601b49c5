"""One copy of a model over several GPUs of a node: an engine with a process for each, which answer together.

They find each other as under torchrun, by its variables, and transformers splits the weights (tensor parallelism).
Every process gets every query and computes its part of it; the first one's answer counts.
"""

from __future__ import annotations

import atexit
import threading
from multiprocessing.connection import wait

from benchmark.node.interfaces import EngineBroken, Listener, Query
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.part import require_parts
from benchmark.node.replica_process import Ask
from benchmark.node.replicas import Flight, Replica, Replicated
from benchmark.node.serving.provisioned import HOST, free_port
from benchmark.records import EngineInfo


class Spread(Replicated):
    """Sends each query to all processes. If one of them ends, all are ended: they would wait for it."""

    together = True

    _port = 0

    def load(self) -> EngineInfo:
        """Start all processes, and wait until each has loaded its part; raises the error of any of them.

        Raises SetupError before any is started if the model cannot be split over so many.
        """
        require_parts(find_snapshot(self.settings), self._count)
        self._port = free_port()
        atexit.register(self.close)  # before multiprocessing's own handler, which would wait for them
        self._replicas = [self._start(number) for number in range(self._count)]
        waiting = list(self._replicas)
        loaded = {}
        while waiting:
            # Whichever reports first: if one has ended, the others wait for it in vain.
            ready = wait([replica.pipe for replica in waiting])
            for replica in [one for one in waiting if one.pipe in ready]:
                loaded[replica.number] = self._loaded(replica)
                waiting.remove(replica)
        for replica in self._replicas:
            threading.Thread(target=self._listen, args=(replica,), daemon=True).start()
        info = loaded[0].info
        return info.model_copy(update={"replicas": self._count})

    def submit(self, query: Query, listener: Listener) -> None:
        """Forward the query to all and return. Raises EngineBroken once one of them is gone."""
        first = self._replicas[0]
        with self._lock:
            if lost := next((replica.lost for replica in self._replicas if replica.lost), None):
                raise EngineBroken(lost)
            key = self._next_key
            self._next_key += 1
            first.flights[key] = Flight(query, listener)
        for replica in self._replicas:
            try:
                with replica.sending:
                    replica.pipe.send(Ask(key, query))
            except OSError:
                continue  # it has died: its listening thread ends the others

    def _part(self, number: int) -> tuple[dict[str, str], str]:
        environment, place = super()._part(number)
        if self._gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[: self._count])
        return {
            **environment,
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(self._count),
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(self._port),
        }, place

    def _lose(self, replica: Replica, reason: str) -> None:
        super()._lose(replica, reason)
        others = [one for one in self._replicas if one.lost is None]
        for other in others:
            super()._lose(other, reason)
            other.process.kill()
