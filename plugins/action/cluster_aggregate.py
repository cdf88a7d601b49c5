"""Action `cluster_aggregate`: make the cluster summary on the controller, in this worker.

A separate process would have to load the package again, which ansible-playbook has already loaded.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.utils.display import Display
from node_action import NodeAction, NodeFailure
from play_settings import named_run, prometheus_dir_of

from benchmark.errors import BenchmarkError
from benchmark.importing import importing, missing_package, one_blas_thread
from benchmark.records import NodeRow


class ActionModule(NodeAction):
    """Needs `run`, a run's name or directory, and `failures`, the play's failures by node."""

    _requires_connection = False
    # Results are summarised even if the play was stopped.
    interruptible = False

    def act(self) -> dict[str, Any]:
        """Return the summary as `text`, the run's `dir`, whether it is `valid`, and whether to fail if it is not.

        Also by node, including each node of a group: why it is `not_counted`, or `invalid`.
        """
        try:
            name = str(self._task.args["run"])
            run_dir = named_run(self.task_vars, name)
            prometheus_dir = prometheus_dir_of(self.task_vars)
            if os.sep not in name:
                Display().display(f"The run {run_dir.name} is read from {run_dir.parent}.")
            with _warnings():
                # Imported here, since no other action needs numpy or matplotlib.
                with importing(), one_blas_thread():
                    from benchmark.cluster.summarise import summarise
                summary = summarise(run_dir, self._task.args["failures"], prometheus_dir)
        except BenchmarkError as error:
            raise NodeFailure(str(error)) from None
        except ModuleNotFoundError as missing:
            raise NodeFailure(missing_package(missing.name)) from None
        run, rows = summary.outcome.run, summary.outcome.result.nodes if summary.outcome.result else ()
        asked = next(iter(run.nodes.values()), None) if run else None
        return {
            "changed": False,
            "text": summary.text.rstrip("\n"),
            "dir": str(run_dir),
            "valid": summary.valid,
            "not_counted": _reasons(row for row in rows if not row.counted),
            "invalid": _reasons(row for row in rows if row.counted and row.verdict and not row.verdict.valid),
            "fail_on_invalid": asked is None or asked.settings.benchmark_fail_on_invalid,
        }


def _reasons(rows: Iterable[NodeRow]) -> dict[str, str]:
    return {node: row.reason for row in rows for node in row.members or (row.node,)}


@contextmanager
def _warnings() -> Iterator[None]:
    """Show all output to stderr meanwhile, also of libraries, as a warning: a worker's stderr is not shown."""
    with redirect_stderr(io.StringIO()) as said:
        try:
            yield
        finally:
            if text := said.getvalue().strip():
                Display().warning(text)
