"""Action `benchmark_ready`: wait until the node is ready to measure, hear what it is, and measure its clock.

A node that is not ready in time is left behind: stopped, its files fetched, and failed with the reason.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.errors import AnsibleConnectionFailure
from clock import round_trips
from node_action import NodeFailure
from run_action import RunAction

from benchmark.cluster.together import READY_FILE, START_FILE, clock_offset, read_facts
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.progress import describe
from benchmark.records import AgreedStart, ReadyNode
from benchmark.rundir import READY, of_repeat


class ActionModule(RunAction):
    """Needs `dir` and `launched_unix_ns`, what `benchmark_start` returned; `repeat`, from 2, for a later measurement.

    A node that has measured may take `benchmark_timeout_s` from the start of that until it is ready for the next.
    """

    def act(self) -> dict[str, Any]:
        """Return `ready`: a run that has ended already is not; why, `benchmark_collect` finds out."""
        launched_unix_ns = int(self._task.args["launched_unix_ns"])
        repeat = int(self._task.args.get("repeat", 1))
        setting, since_unix_ns = "benchmark_sync_timeout_s", launched_unix_ns
        if repeat > 1:
            if not (self.place / of_repeat(READY_FILE, repeat - 1)).is_file():
                return {"changed": False, "ready": False}
            before = read_record(self.run_dir / of_repeat(START_FILE, repeat - 1), AgreedStart)
            setting, since_unix_ns = "benchmark_timeout_s", before.start_unix_ns
        timeout_s = int(self.setting(setting))
        deadline = time.monotonic() + timeout_s - (time.time_ns() - since_unix_ns) / 1e9
        ready = of_repeat(READY, repeat)
        state = self.wait_for(ready, deadline)
        if state is None:
            self._leave_behind(setting, timeout_s)
        if state != ready:
            return {"changed": False, "ready": False}
        trips = round_trips(self._connection, self.shell)
        try:
            facts = read_facts(self.held)
            offset_ns, uncertainty_ns = clock_offset(trips)
        except InputError as error:
            self.end()
            raise NodeFailure(str(error)) from None
        except ValueError:
            self.end()
            raise NodeFailure("The node's clock could not be read: date +%s%N has to print nanoseconds.") from None
        found = ReadyNode(
            node=self.node,
            launched_unix_ns=launched_unix_ns,
            offset_ns=offset_ns,
            uncertainty_ns=uncertainty_ns,
            round_trips=len(trips),
            environment=facts,
            attempt=self.order.attempt,
        )
        write_record(self.place / of_repeat(READY_FILE, repeat), found)
        return {"changed": False, "ready": True, "clock_offset_ms": offset_ns / 1e6}

    def _leave_behind(self, setting: str, timeout_s: int) -> None:
        self.say("not ready in time, left behind")
        reason = f"Not ready to measure within {setting} = {timeout_s} s"
        try:
            self.end()
        except AnsibleConnectionFailure:
            raise NodeFailure(
                f"{reason}, and the SSH connection is lost: {self.lost or 'it broke just now'}."
            ) from None
        doing = describe(self.last) if self.last else "starting"
        raise NodeFailure(f"{reason}: it was still {doing}. It was stopped; the others went on.")
