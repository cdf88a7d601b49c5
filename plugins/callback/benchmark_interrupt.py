"""Callback `benchmark_interrupt`: Ctrl-C stops the nodes, fetches what they measured, and ends with the summary."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.plugins.callback import CallbackBase
from interruption import ignore_wake, interrupt_workers

DOCUMENTATION = """
    name: benchmark_interrupt
    type: notification
    short_description: handles Ctrl-C and SIGTERM once a benchmark's run is open
    description:
        - The first signal stops the nodes, fetches what they measured and lets the play go on to its summary.
        - The same signal again aborts at once, as ansible-playbook does.
    requirements:
        - enabled in configuration
"""

# From these actions on there is something to stop, and a directory to fetch into.
OPENS = ("benchmark_open", "submission")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """A callback, since only callbacks run in ansible-playbook's own process, which receives the signals."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        ignore_wake()
        self._before: dict[int, Any] = {}

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Take over ansible-core's signal handling from the task that opens the run."""
        if task.action in OPENS and not self._before:
            self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # A CI system sends SIGINT and a little later SIGTERM: only the same signal again aborts.
        signal.signal(number, self._before[number])
        words = "Stopping the nodes and fetching what they measured; repeat to abort at once and leave them measuring."
        # In a thread: the signal may have interrupted the output of a line.
        threading.Thread(target=self._display.warning, args=(words,), daemon=True).start()
        interrupt_workers(number)
