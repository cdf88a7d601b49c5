"""Several replicas on one node: an engine that hosts others, each with one process and one GPU."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from pydantic import JsonValue

from benchmark.errors import SetupError
from benchmark.node.interfaces import Engine, EngineBroken, Listener, Query
from benchmark.node.replica_process import Ask, Assignment, Broken, Cancel, Ended, FirstToken, Loaded, NotLoaded, serve
from benchmark.node.watch.oom import OomWatch
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings

# A replica ends when its pipe closes; one that hangs in a driver is killed.
CLOSE_S = 5.0


# Details that may differ between identical replicas.
OF_ITS_OWN = {"load_s", "startup_s", "memory", "cross_check"}


@dataclass
class Flight:
    """A query in flight on a replica, and its listener."""

    query: Query
    listener: Listener


class Replica:
    """A replica's process, as seen by its parent."""

    def __init__(self, number: int, place: str, process: BaseProcess, pipe: Connection) -> None:
        self.number = number
        self.place = place
        self.process = process
        self.pipe = pipe
        self.flights: dict[int, Flight] = {}
        self.dispatched = 0
        self.lost: str | None = None
        """Why it does not answer any more."""
        self.sending = threading.Lock()
        self.oom = OomWatch()

    def __str__(self) -> str:
        return f"Replica {self.number} (pid {self.process.pid}, {self.place})"

    def death(self) -> str:
        """Return how the process ended, as a sentence."""
        self.process.join(CLOSE_S)
        code = self.process.exitcode
        if code is None:
            return f"{self} closed its pipe."
        if code < 0:
            killer = self.oom.killer() if -code == signal.SIGKILL else ""
            return f"{self} was killed by {signal.Signals(-code).name}{killer}."
        return f"{self} ended with exit code {code}."


class Replicated(Engine):
    """Sends each query to the replica with the fewest in flight. Times are the replicas' own, on one clock."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        generation: Generation,
        options: dict[str, Any],
        count: int,
        gpus: list[str] | None,
    ) -> None:
        super().__init__(settings, generation, options)
        self._name = name
        self._gpus = gpus
        self._count = count
        self._replicas: list[Replica] = []
        self._lock = threading.Lock()
        self._next_key = 0

    def load(self) -> EngineInfo:
        """Start all replicas, and wait until each has loaded; raises a replica's error, with its name."""
        atexit.register(self.close)  # before multiprocessing's own handler, which would wait for them
        self._replicas = [self._start(number) for number in range(self._count)]
        loaded = [self._loaded(replica) for replica in self._replicas]
        for replica in self._replicas:
            threading.Thread(target=self._listen, args=(replica,), daemon=True).start()
        first = loaded[0].info
        each = [_apart(replica, one, first) for replica, one in zip(self._replicas, loaded, strict=True)]
        details = {**first.details, "dispatch": "fewest in flight", "replicas": each}
        return EngineInfo(name=first.name, simulated=first.simulated, replicas=self._count, details=details)

    def submit(self, query: Query, listener: Listener) -> None:
        """Forward the query and return. Raises EngineBroken if no replica is left."""
        with self._lock:
            replica = min(self._alive(), key=lambda one: (len(one.flights), one.dispatched))
            key = self._next_key
            self._next_key += 1
            replica.dispatched += 1
            replica.flights[key] = Flight(query, listener)
        self._send(replica, Ask(key, query))

    def cancel(self, query: Query) -> None:
        """Make the query's replica drop it."""
        with self._lock:
            held = [
                (replica, key)
                for replica in self._replicas
                for key, flight in replica.flights.items()
                if flight.query is query
            ]
            for replica, key in held:
                del replica.flights[key]
        for replica, key in held:
            self._send(replica, Cancel(key))

    def check(self) -> None:
        """Raise EngineBroken if no replica is left."""
        with self._lock:
            self._alive()

    def close(self) -> None:
        """End all replicas."""
        atexit.unregister(self.close)
        with self._lock:
            replicas = list(self._replicas)
            for replica in replicas:
                replica.lost = replica.lost or f"{replica} was closed."
        for replica in replicas:
            replica.process.kill()
        for replica in replicas:
            replica.process.join(CLOSE_S)

    def _alive(self) -> list[Replica]:
        """Return the replicas that still answer; raises EngineBroken if there are none. Call it with the lock held."""
        if alive := [replica for replica in self._replicas if replica.lost is None]:
            return alive
        raise EngineBroken(" ".join(replica.lost or "" for replica in self._replicas) or "There is no replica.")

    def _send(self, replica: Replica, message: Ask | Cancel) -> None:
        try:
            with replica.sending:
                replica.pipe.send(message)
        except OSError:
            pass  # it has died: its listening thread fails the query together with its others

    def _start(self, number: int) -> Replica:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        environment, place = self._part(number)
        arguments = self._name, self.settings, self.generation, self.options, environment, self.demands
        process = context.Process(target=serve, args=(Assignment(number, *arguments), theirs), name=f"replica-{number}")
        process.start()
        theirs.close()  # so that the replica's death closes the pipe
        return Replica(number, place, process, ours)

    def _part(self, number: int) -> tuple[dict[str, str], str]:
        """Return a replica's environment, and the name of its part of the node."""
        if self._gpus is not None:
            return {"CUDA_VISIBLE_DEVICES": self._gpus[number]}, f"GPU {self._gpus[number]}"
        threads = str(max(1, len(os.sched_getaffinity(0)) // self._count))
        return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}, "CPU"

    def _loaded(self, replica: Replica) -> Loaded:
        try:
            message = replica.pipe.recv()
        except (EOFError, OSError):
            raise SetupError(f"While loading, {replica.death()}") from None
        if isinstance(message, NotLoaded):
            # Errors in settings or the model are not a single replica's.
            whose = f"{replica}: " if message.kind is SetupError else ""
            raise message.kind(f"{whose}{message.reason}")
        assert isinstance(message, Loaded)  # noqa: S101 # the first message of a replica is one of the two
        return message

    def _listen(self, replica: Replica) -> None:
        while True:
            try:
                message = replica.pipe.recv()
            except (EOFError, OSError):
                self._lose(replica, replica.death())
                return
            try:
                self._hear(replica, message)
            except Exception as error:  # the other queries' listeners must still be called
                traceback.print_exc()
                self._lose(replica, f"The listener of {replica} failed: {type(error).__name__}: {error}")

    def _hear(self, replica: Replica, message: object) -> None:
        if isinstance(message, Broken):
            self._lose(replica, f"{replica}: {message.reason}")
            replica.process.kill()
        elif isinstance(message, FirstToken):
            if flight := replica.flights.get(message.key):
                flight.listener.first_token(flight.query, message.at_ns, message.token_id)
        elif isinstance(message, Ended):
            with self._lock:
                flight = replica.flights.pop(message.key, None)
            if flight is None:
                return  # the replica was lost, and the query has failed already
            if message.answer is None:
                flight.listener.failed(flight.query, f"{replica}: {message.error}")
            else:
                flight.listener.completed(flight.query, message.at_ns, message.answer)

    def _lose(self, replica: Replica, reason: str) -> None:
        """Send nothing more to the replica, and fail its queries."""
        with self._lock:
            replica.lost = replica.lost or reason
            flights = list(replica.flights.values())
            replica.flights.clear()
        for flight in flights:
            flight.listener.failed(flight.query, replica.lost)


def _apart(replica: Replica, loaded: Loaded, first: EngineInfo) -> dict[str, JsonValue]:
    """Return the replica's identity, and the details that differ from the first one's."""
    unlike: dict[str, JsonValue] = {
        name: value
        for name, value in loaded.info.details.items()
        if name not in OF_ITS_OWN and first.details.get(name) != value
    }
    return {
        "number": replica.number,
        "pid": replica.process.pid,
        "device": loaded.device,
        **({"unlike": unlike} if unlike else {}),
    }
