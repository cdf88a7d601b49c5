"""Action `benchmark_collect`: wait for the node's run, tell how far it is, bring its files back, failed or not."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.errors import AnsibleConnectionFailure
from node_action import NodeFailure, unreachable
from run_action import BEHIND, GRACE_S, REFUSED, REMOVED, RunAction

from benchmark.cluster.fetched import why_failed
from benchmark.cluster.together import START_FILE
from benchmark.files import read_record
from benchmark.records import AgreedStart
from benchmark.rundir import of_repeat


class ActionModule(RunAction):
    """A lost connection is not a lost run: it is looked for again until the time limit has passed."""

    def act(self) -> dict[str, Any]:
        """Return the names of the files that came back."""
        if self.check_mode:
            return {"changed": False, "note": "Nothing was started, so there is nothing to collect."}
        if (refused := self.place / REFUSED).exists():
            sentence = refused.read_text(encoding="utf-8")
            refused.unlink()
            raise NodeFailure(sentence)
        if (behind := self.place / BEHIND).exists():
            self._give_up(behind)
        timeout_s = int(self.setting("benchmark_timeout_s"))
        repeats = int(self.setting("benchmark_repeats"))
        # Nodes that wait for each other are at their last repeat by now; one that does not is at its first.
        left_s = timeout_s if self.order.wait_s else self.order.limit_s or timeout_s
        exit_code = self._wait(left_s + GRACE_S, repeats)
        if exit_code == REMOVED:
            raise NodeFailure(
                f"{self.on_node} is gone from the node: did it restart, and does that not outlive a restart (as /tmp), "
                "or was it removed? Nothing could be fetched; set benchmark_work_dir to a directory that stays."
            )
        try:
            names = self.fetch()
        except AnsibleConnectionFailure as error:
            raise NodeFailure(f"{unreachable(str(error), self.address)} {self.stays}") from error
        if names and exit_code.isdigit():
            self.clean()
        if reason := why_failed(exit_code, self.place, timeout_s, repeats):
            raise NodeFailure(reason)
        return {"changed": True, "files": names}

    def _give_up(self, behind: Path) -> None:
        """Stop a node that was left behind, fetch what there is, and say why."""
        reason = behind.read_text(encoding="utf-8")
        behind.unlink()
        try:
            stopped = self.end()
        except AnsibleConnectionFailure as error:
            lost = " ".join(str(error).split())[-200:]
            raise NodeFailure(
                f"{reason} It could not be asked to stop, the SSH connection is lost ({lost}): it ends by itself, "
                f"at the latest after benchmark_timeout_s. {self.stays}"
            ) from None
        raise NodeFailure(f"{reason} It was stopped; the others went on." if stopped else reason)

    def _wait(self, limit_s: int, repeats: int) -> str:
        """Return what watch.sh says of the run's end."""
        # Those that were told the start have been waited for together.
        waited_s = self._since_start_s(repeats) if self.order.wait_s else 0
        state = self.wait_for("exit_code", time.monotonic() + limit_s - waited_s)
        if state is None:
            if self.order.limit_s and not self.lost:
                # The limit on the node has room for the turns of all.
                self.end()
                raise NodeFailure(f"The benchmark hung: it was stopped {limit_s} s after the agreed start.")
            lost = f", and no connection: {self.lost}" if self.lost else ": the node does not stop it."
            raise NodeFailure(f"No end after {limit_s} s{lost.rstrip('.')}. {self.stays}")
        return state

    def _since_start_s(self, repeats: int) -> float:
        """Return how long ago the last start was that the node was told, in seconds; 0 where there was none."""
        path = self.run_dir / of_repeat(START_FILE, repeats)
        start = read_record(path, AgreedStart) if path.is_file() else None
        if start is None or self.node not in start.nodes or start.attempt != self.order.attempt:
            return 0
        return max(0.0, (time.time_ns() - start.start_unix_ns) / 1e9)
