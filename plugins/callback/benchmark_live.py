"""Callback `benchmark_live`: show the nodes' progress.

On a terminal it is a block at the bottom; elsewhere, and under ansible-runner, lines, which runner turns into events.
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import recap
from ansible.plugins.callback import CallbackBase
from live_channel import open_channel
from terminal_block import Block, draws

from benchmark.cluster.fleet import ENDED, FAILED, WAITING, Fleet
from benchmark.provisioned import PROVISIONING_ROLES

DOCUMENTATION = """
    name: benchmark_live
    type: notification
    short_description: shows the progress of a benchmark's nodes
    description:
        - On a terminal, a block of lines at the bottom. Elsewhere, a line for each stage of each node, and now and then
          one for all nodes.
    requirements:
        - enabled in configuration
"""

# The roles with tasks that take time on a node.
BENCHMARK = "benchmark"
ROLES = ("preflight", *PROVISIONING_ROLES, BENCHMARK)
# Actions that run once but for all nodes; they report each node's progress themselves.
FOR_ALL = ("node_probe", "benchmark_measure")
# How often the block is drawn, and how often all nodes get a line if there is no block, in seconds.
DRAW_S = 0.5
LINE_S = 30.0
# A shorter task needs no block.
PATIENCE_S = 0.5
# Lines of the terminal that stay free for the output above.
LINES_ABOVE = 4


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """Draws in its own thread while tasks of ROLES run; workers report through `live_channel`."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_live"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        # Output to a file or pipe (tee, cron, nohup) would otherwise appear only when a buffer is full.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        self._channel = open_channel()
        self._fleet = Fleet()
        # For the fleet: one thread receives results, and another draws.
        self._lock = threading.Lock()
        self._block = Block(self._display._lock) if draws(os.environ, sys.stdout.isatty()) else None
        self._at_work: threading.Thread | None = None
        self._enough = threading.Event()
        atexit.register(self._rest)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Start over, since another play has other nodes."""
        self._rest()
        self._fleet = Fleet()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Start with the first task that takes time on nodes; stop during other tasks."""
        if _role(task) not in ROLES or (task.run_once and task.action not in FOR_ALL):
            self._rest()
        elif self._at_work is None:
            self._enough.clear()
            self._at_work = threading.Thread(target=self._watch, name="benchmark_live", daemon=True)
            self._at_work.start()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Stop when the playbook has ended."""
        self._rest()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Show that a role works on a node."""
        if (role := _role(task)) in ROLES:
            self._put(host.name, role, unless_it_runs=role == BENCHMARK)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Show that a node waits after a task."""
        recap.count(result)
        role = _role(result.task)
        if role in ROLES and result.task.action not in FOR_ALL:
            self._put(result.host.name, WAITING)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Correct the recap for a skipped task."""
        recap.count_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Show that a node has failed."""
        if not ignore_errors:
            recap.count_failure(result)
        if _role(result.task) in ROLES:
            self._put(result.host.name, FAILED)

    def _put(self, node: str, state: str, unless_it_runs: bool = False) -> None:
        with self._lock:
            if not (unless_it_runs and self._fleet.runs(node)):
                self._fleet.put(node, state, time.monotonic())

    def _watch(self) -> None:
        began = last_line = time.monotonic()
        while not self._enough.wait(DRAW_S):
            self._hear()
            now = time.monotonic()
            if self._block is None:
                last_line = self._say(now, last_line)
            elif now - began >= PATIENCE_S:
                columns, lines = shutil.get_terminal_size()
                with self._lock:
                    screen = self._fleet.screen(columns - 1, lines - LINES_ABOVE, now)
                self._block.open()
                self._block.show(screen)

    def _hear(self) -> None:
        with self._lock:
            for node, progress in self._channel.receive():
                if progress.state in (*ROLES, *ENDED) and not progress.detail:
                    self._fleet.put(node, progress.state, time.monotonic())
                else:
                    self._fleet.report(node, progress, time.monotonic())

    def _say(self, now: float, last_line: float) -> float:
        """Print changes, and every LINE_S seconds a line for all nodes; return the time of the last such line."""
        with self._lock:
            lines = self._fleet.changes()
            if now - last_line >= LINE_S:
                lines += self._fleet.lines(now)
                last_line = now
        for line in lines:
            self._display.display(f"{time.strftime('%H:%M:%S')} {line}")
        return last_line

    def _rest(self) -> None:
        """End the thread and remove the block from the terminal."""
        if self._at_work is None:
            return
        self._enough.set()
        self._at_work.join()
        self._at_work = None
        self._hear()
        if self._block is None:
            self._say(time.monotonic(), time.monotonic())
        else:
            self._block.close()


def _role(task: Any) -> str:
    role = getattr(task, "_role", None)
    return str(role.get_name()) if role else ""
