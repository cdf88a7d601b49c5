"""A node that measures nothing itself: it serves, or computes, for a run that is measured on another node.

It loads its part, starts telemetry at the agreed start, and ends with that run, whose windows it receives.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

from pydantic import TypeAdapter

from benchmark.node.interfaces import now_ns
from benchmark.node.lock import Lock
from benchmark.node.request import RunRequest
from benchmark.node.run import NodeRun
from benchmark.node.together import Start, sleep_until, wait_for_start, wait_for_word
from benchmark.node.watch.telemetry import start_watch
from benchmark.records import Environment, ServedWindow, Window
from benchmark.rundir import LISTENS, WINDOWS

_WINDOWS = TypeAdapter(tuple[Window, ...])


class WatchingRun(NodeRun):
    """The run of such a node, from its beginning to its result."""

    loads: ClassVar[str] = ""
    waits: ClassVar[str]
    works: ClassVar[str]
    """Progress words while it loads (empty: the default), is ready, and another node's run is measured."""

    def __init__(self, request: RunRequest) -> None:
        super().__init__(request)
        self.listening = Lock(request.directory / f"{LISTENS}.lock")

    @abstractmethod
    def _join(self, environment: Environment) -> None:
        """Meet the other nodes, and return once this node may load."""

    @abstractmethod
    def _load(self, stack: ExitStack) -> Callable[[], None]:
        """Start the server, which `stack` ends; return a function that raises if it cannot serve any more."""

    def _stages(self) -> None:
        environment = self._examine()
        self._join(environment)
        if self.request.settings.benchmark_probes == "on":
            self._probe(environment)
        with ExitStack() as stack:
            if self.request.settings.benchmark_telemetry:
                self.watch = start_watch(self.request.directory, environment)
                stack.callback(self.watch.close)
            with self.open.stage("loading", reported=self.loads):
                check = self._load(stack)
            with self.open.stage("ready", reported=self.waits):
                start = self._until_start(environment, check)
            with self.open.stage("measuring", reported=self.works):
                self._until_over(start, check)

    def _until_start(self, environment: Environment, check: Callable[[], None]) -> Start:
        if self.watch.gpus:
            self.watch.idle()
        starting = self.measurements.starting[0]
        start = wait_for_start(self.request.directory, self.request.wait_s or 0, environment, starting, check=check)
        sleep_until(start.at_ns)
        return start

    def _until_over(self, start: Start, check: Callable[[], None]) -> None:
        began_ns = now_ns()
        self.watch.start(began_ns)
        try:
            wait_for_word(self.request.directory / WINDOWS, self.request.limit_s or 0, check)
        finally:
            self.watch.end(began_ns, now_ns())
        self._keep_windows(start.unix_ns)

    def _keep_windows(self, began_unix_ns: int) -> None:
        """Store the telemetry of each measured window; none: nothing was measured."""
        text = (self.request.directory / WINDOWS).read_text(encoding="utf-8")
        served, before_ns = [], None
        for number, window in enumerate(_WINDOWS.validate_json(text), start=1):
            from_ns, to_ns = window.started_unix_ns - began_unix_ns, window.ended_unix_ns - began_unix_ns
            telemetry = self.watch.between(from_ns, to_ns, before_ns, number)
            served.append(ServedWindow(window=window, telemetry=telemetry))
            before_ns = to_ns
        first: dict[str, Any] = {"window": served[0].window, "telemetry": served[0].telemetry} if served else {}
        self.open.update(served=tuple(served), **first)
