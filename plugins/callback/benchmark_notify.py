"""Callback `benchmark_notify`: send the verdict to the receiver in the variable `benchmark_notify`, however a run ends.

A task could not do this: none is reached if the settings are refused, or if the summary cannot be made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from checkout import CHECKOUT

from benchmark.cluster.notify import NotNotifiedError, Receiver, notify, receiver_of
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.run_verdict import VERDICT_FILE, run_verdict
from benchmark.errors import InputError
from benchmark.files import MAX_RESULT_BYTES, read_text
from benchmark.rundir import read_run
from benchmark.variables import NOTIFY, NOTIFY_HEADERS

DOCUMENTATION = """
    name: benchmark_notify
    type: notification
    short_description: notifies of a run's end
    description:
        - Sends verdict.json to the webhook or command in the variable benchmark_notify when the playbook has ended.
        - A problem with that is only a warning.
    requirements:
        - enabled in configuration
"""

WHOLE_JOB = CHECKOUT / "playbooks/benchmark.yml"
# The actions that open a run, and that write its verdict.json.
OPENS, SUMMARISES = "benchmark_open", "cluster_aggregate"
# How many messages of failed tasks are kept.
MOST_FAILURES = 10


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """Remembers the playbook's outcome, and sends it once the playbook has ended."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_notify"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._whole_job = self._summarised = False
        self._run_dir: Path | None = None
        self._failures: list[str] = []
        # A host for its variables: all nodes of a run have the same receiver.
        self._play: Any = None
        self._host: Any = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Remember whether it is benchmark.yml: preflight.yml and others refuse settings too, but are not runs."""
        self._whole_job = Path(playbook._file_name).resolve() == WHOLE_JOB

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the play that opens the run, for its variables."""
        if self._run_dir is None:
            self._play = play

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember that a run was opened or summarised."""
        if result.task.action == OPENS and result.result.get("dir"):
            self._run_dir, self._host = Path(result.result["dir"]), result.host
        elif result.task.action == SUMMARISES and self._run_dir is not None:
            self._summarised = True

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Remember why no run was opened or no summary made."""
        if self._run_dir is None:
            self._host = result.host
        if not ignore_errors and len(self._failures) < MOST_FAILURES:
            self._failures.append(str(result.result.get("msg") or "A task failed without a message."))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Notify, except in check mode and after other playbooks."""
        refused = self._whole_job and self._run_dir is None and bool(self._failures)
        if context.CLIARGS.get("check") or not (self._run_dir or refused):
            return
        try:
            if receiver := self._receiver():
                notify(receiver, self._verdict())
                self._display.display(f"Notified: {receiver.name}.")
        except (NotNotifiedError, InputError) as error:
            self._display.warning(f"{NOTIFY}: {error} The run is not affected.")
        except KeyboardInterrupt:  # all else is done, and the exit code is known
            self._display.warning(f"{NOTIFY}: ended by Ctrl-C. The run is not affected.")

    def _receiver(self) -> Receiver | None:
        variables = self._play.get_variable_manager().get_vars(play=self._play, host=self._host)
        templar = Templar(loader=self._play.get_loader(), variables=variables)
        names = [name for name in (NOTIFY, NOTIFY_HEADERS) if name in variables]
        try:
            return receiver_of({name: templar.template(variables[name]) for name in names}, CHECKOUT)
        except InputError:
            # The receiver itself is among the refused settings that were shown.
            return None

    def _verdict(self) -> bytes:
        """Return the verdict as JSON. Raises InputError if it cannot be read."""
        if self._run_dir is not None and self._summarised:
            return read_text(self._run_dir / VERDICT_FILE, MAX_RESULT_BYTES).encode()
        if self._run_dir is None:
            outcome = Outcome(broke="\n".join(["No run was opened.", *self._failures]), refused=True)
        else:
            said = ["The playbook ended before the summary was made.", *self._failures]
            outcome = Outcome(read_run(self._run_dir), broke="\n".join(said))
        return run_verdict(outcome, self._run_dir, "report.html").model_dump_json(indent=2).encode() + b"\n"
