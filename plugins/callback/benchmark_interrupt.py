"""Callback `benchmark_interrupt`: Ctrl-C stops the nodes, brings what they measured, and ends with the summary."""

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
    short_description: what Ctrl-C and SIGTERM do once a benchmark's run is open
    description:
        - The first one stops the nodes, fetches what they measured and lets the play go on to its summary.
        - The same signal once more aborts at once, as ansible-playbook does.
    requirements:
        - enabled in configuration
"""

# From here on there is something to stop, and a directory to fetch into: a run's, or one of a submission's.
OPENS = ("benchmark_open", "submission")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """The only kind of plugin that lives in ansible-playbook's own process, which is what signals are sent to."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        ignore_wake()
        self._before: dict[int, Any] = {}

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Stand between the user and ansible-core from the task that opens the run."""
        if task.action in OPENS and not self._before:
            self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # A CI system sends SIGINT and a little later SIGTERM: only the same one again is impatience.
        signal.signal(number, self._before[number])
        words = "Stopping the nodes and fetching what they measured; repeat to abort at once and leave them measuring."
        # Not from here: the signal may have come in the middle of a line.
        threading.Thread(target=self._display.warning, args=(words,), daemon=True).start()
        interrupt_workers(number)
