"""Action `benchmark_failure`: record why a node failed beside the run's other files, for the summary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from interruption import interrupted_by
from node_action import NodeAction

from benchmark.cluster.interruption import keep_interruption
from benchmark.files import read_record, write_record
from benchmark.records import Failure
from benchmark.rundir import FAILURE, NODES


class ActionModule(NodeAction):
    """Called in a rescue, with the failed task's result in `ansible_failed_result`."""

    _requires_connection = False
    interruptible = False

    def act(self) -> dict[str, Any]:
        """Write `nodes/<node>/failure.json` under `dir` (empty: check mode, nothing is written); return the failure."""
        failed = self.setting("ansible_failed_result", {})
        task = self.setting("ansible_failed_task", {})
        reason = str(failed.get("msg") or failed.get("stderr") or "The task failed without a message.")
        stage = str(failed.get("stage") or task.get("name") or "playbook")
        failure = Failure(node=self.node, stage=stage[:200], reason=reason[:4000])
        directory = str(self._task.args.get("dir", ""))
        if directory:
            place = Path(directory) / NODES / self.node
            place.mkdir(exist_ok=True)
            if (place / FAILURE).exists():
                # Written when the node's run failed.
                failure = read_record(place / FAILURE, Failure)
            else:
                write_record(place / FAILURE, failure)
            if failed.get("interrupted"):
                keep_interruption(Path(directory), interrupted_by())
        return {"changed": False, "failure": failure.model_dump()}
