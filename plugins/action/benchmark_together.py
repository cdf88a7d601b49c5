"""Action `benchmark_together`: start the nodes' runs, tell all when to measure, bring home what they measured.

It runs once, for all nodes that wait for each other. A node that is not ready in time, or is not to measure, is left
behind: why, is put down beside its files for `benchmark_collect`, which stops it, fetches what there is and fails.

With `look` it looks at the nodes first, in the same sessions, and starts nothing where any of them lacks something or
cannot be reached: `node_prepare` sees to that, node by node.
"""

from __future__ import annotations

import base64
import binascii
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import live_channel
from ansible.errors import AnsibleError
from gathering import LATE_S, Gathering, Partner, State
from leader import alone
from node_action import NodeAction, unreachable
from partners import Gathered, partner
from play_settings import nodes
from preparation import PREFLIGHT, Preparation
from run_action import ARCHIVE, BEHIND, GRACE_S, REFUSED, hand_on, show, why_refused

from benchmark.cluster.drift import drift_reason
from benchmark.cluster.fetched import Packed, unpack
from benchmark.cluster.together import READY_FILE, START_FILE, agree, clock_offset, drift_of_ready, read_facts
from benchmark.errors import InputError
from benchmark.files import read_record, write_atomic, write_record
from benchmark.progress import Told, describe
from benchmark.records import AgreedStart, Drift, ReadyNode
from benchmark.rundir import NODES, ORDER, RunOrder, of_repeat

# What a node's files may have unpacked to be unpacked while others are waited for: a second of work.
MOST_BYTES = 64 * 2**20
# Three descriptors for each node's session, one for its directory, and what ansible-core has open.
DESCRIPTORS_PER_NODE, DESCRIPTORS = 6, 512


class ActionModule(NodeAction):
    """Needs `dir`; takes `look`.

    Each of a run's repeats has a start of its own, and the first comes after the nodes' turns alone. A node that has
    measured may take `benchmark_timeout_s` from the start of that until it is ready for the next.
    """

    _requires_connection = False
    repeat = 1
    started = False

    def act(self) -> dict[str, Any]:
        """Return the nodes that were `told` the last start, how long before it all had been, and those that are `home`.

        Those have completed, their files are here, and nothing is left to be done with them. `prepared`: the nodes that
        were found to lack nothing; `started`: whether the runs were started.
        """
        if self.check_mode or not self.nodes:
            return self._result({})
        try:
            return self._result(self._together())
        except AnsibleError:
            if self._looks and not self.started:
                # Of a node's variables, say: its own task tells, and for the others nothing is lost.
                return self._result({})
            raise

    def _together(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for repeat in range(1, self._repeats + 1):
            self.repeat = repeat
            taking_part = [node for node in self.nodes.values() if self._comes_to(node)]
            gathering = Gathering([partner(self, one, len(taking_part)) for one in taking_part], hand_on, show)
            try:
                if not self.started and not self._lack_nothing(gathering):
                    break
                self.started = True
                told = self._measure(gathering)
                if repeat == self._repeats:
                    gathering.bring_home(self._limits(told.get("told", ())), self._keep)
            finally:
                gathering.close()
        return told

    @property
    def _looks(self) -> bool:
        return bool(self._task.args.get("look"))

    def _lack_nothing(self, gathering: Gathering) -> bool:
        """Look at the nodes where that is asked for; tell whether all can be started."""
        if not self._looks:
            return True
        self._show_stage(PREFLIGHT)
        if not gathering.look(self._is_prepared):
            return False
        self._show_stage(self.stage)
        return True

    def _is_prepared(self, one: Partner) -> bool:
        preparation = self.nodes[one.node].preparation
        if preparation is None or not preparation.is_done("\n".join(one.looks)):
            return False
        self.prepared.append(one.node)
        return True

    def _show_stage(self, stage: str) -> None:
        if live_channel.channel is not None:
            for node in self.nodes:
                live_channel.channel.send(node, Told(stage))

    def _result(self, told: Mapping[str, Any]) -> dict[str, Any]:
        return {"changed": self.started, "started": self.started, "prepared": self.prepared, **told, "home": self.home}

    def _limits(self, told: Iterable[str]) -> dict[str, float]:
        limits = {node: self.nodes[node].order.resolved.settings.benchmark_timeout_s for node in told}
        return {node: limit_s + GRACE_S for node, limit_s in limits.items()}

    def _keep(self, one: Partner) -> bool:
        """Unpack what a node sent; what is not as it should be is left to the node's own task, which says so."""
        place = self.nodes[one.node].place
        archive = place / ARCHIVE
        try:
            packed = Packed.parse("\n".join(one.packed[:-1]))
            archive.write_bytes(base64.b64decode(packed.inline))
            if not unpack(archive, place, MOST_BYTES, packed.files):
                return False
        except (InputError, OSError, binascii.Error):
            return False
        finally:
            archive.unlink(missing_ok=True)
        self.home.append(one.node)
        return True

    @property
    def _repeats(self) -> int:
        return max(node.order.resolved.settings.benchmark_repeats for node in self.nodes.values())

    def _comes_to(self, node: Gathered) -> bool:
        """Tell whether the node takes part in this repeat, and note by when it has to be ready for it."""
        if self.repeat > 1:
            if node.left or not (node.place / of_repeat(READY_FILE, self.repeat - 1)).is_file():
                return False
            before = read_record(self.run_dir / of_repeat(START_FILE, self.repeat - 1), AgreedStart)
            node.limit, node.since_unix_ns = "benchmark_timeout_s", before.start_unix_ns
        node.repeat = self.repeat
        return True

    def _measure(self, gathering: Gathering) -> dict[str, Any]:
        gathering.wait_until_ready()
        gathering.read_clocks()
        for one in gathering.partners:
            self._judge(one)
        if self.repeat == 1:
            self._turns(gathering)
        return self._tell(gathering)

    def _turns(self, gathering: Gathering) -> None:
        alone = {one.node: one for one in gathering.partners if self.nodes[one.node].order.solo}
        if not alone:
            return
        ready = [one for one in alone.values() if one.state is State.READY]
        if self._drift_fails:
            # Here already: what a turn takes is longer than this by far.
            self._require_likeness(ready, drift_of_ready(self.run_dir))
        limits = {node: self.nodes[node].order.resolved.settings.benchmark_timeout_s for node in alone}
        for node in gathering.take_turns(limits):
            limit = f"benchmark_timeout_s = {limits[node]} s"
            self._leave(alone[node], f"Measuring alone did not end within {limit}.")
        for one in ready:
            if one.state is not State.READY:
                # It is not to be told a start.
                (self.nodes[one.node].place / READY_FILE).unlink()

    def after_interruption(self) -> dict[str, Any]:
        """Leave it to the nodes' own tasks to stop them and to fetch what there is."""
        return {**self._result({}), "interrupted": True}

    @property
    def run_dir(self) -> Path:
        """The run's directory on the controller."""
        return Path(str(self._task.args["dir"]))

    def alone(self) -> AbstractContextManager[Any]:
        """Keep others from all nodes' parts of the run; a worker of a controller that was killed may still be at it."""
        self.nodes: dict[str, Gathered] = {}
        self.home: list[str] = []
        self.prepared: list[str] = []
        stack = ExitStack()
        if not self.check_mode:
            _want_descriptors(len(nodes(self.task_vars)))
            for node in nodes(self.task_vars):
                self._take(node, stack)
        return stack

    def _take(self, node: str, stack: ExitStack) -> None:
        variables = self.task_vars["hostvars"][node]
        prepared = variables.get("node_prepared") or {}
        adopted = (prepared.get("benchmark_start") or {}).get("adopted")
        if prepared.get("failed") or adopted or node in self.task_vars["benchmark_run"]["done"]:
            return
        place = self.run_dir / NODES / node
        order = read_record(place / ORDER, RunOrder)
        if order.wait_s is None:
            return
        stack.enter_context(alone(place))
        on_node = f"{order.resolved.settings.benchmark_work_dir}/{self.run_dir.name}"
        preparation = Preparation(self, node, variables) if self._looks else None
        self.nodes[node] = Gathered(order, place, on_node, variables, preparation)

    def _judge(self, one: Partner) -> None:
        """Keep what a node said that is ready; put down why one is not."""
        node = self.nodes[one.node]
        node.launched_unix_ns = node.launched_unix_ns or one.started_unix_ns
        if one.refused:
            self._leave(one, why_refused("start.sh", one.refused, node.on_node), REFUSED)
        elif one.state is State.LEFT and not node.launched_unix_ns:
            silent = f"took a command and gave no answer within {node.limit_s} s"
            self._leave(one, unreachable(one.lost or silent, node.address))
        elif one.state is State.LEFT:
            show(one.node, "not ready in time, left behind")
            reason = f"Not ready to measure within {node.limit} = {node.limit_s} s"
            if one.lost:
                self._leave(one, f"{reason}, and the SSH connection is lost: {one.lost}.")
            else:
                doing = describe(one.last) if one.last else "starting"
                self._leave(one, f"{reason}: it was still {doing}.")
        if one.state is not State.READY:
            return
        try:
            facts, (offset_ns, uncertainty_ns) = read_facts(one.facts), clock_offset(one.trips)
        except InputError as error:
            self._leave(one, str(error))
        except ValueError:
            self._leave(one, "The node's clock could not be read: date +%s%N has to print nanoseconds.")
        else:
            node.offset_ns = offset_ns
            found = ReadyNode(
                node=one.node,
                launched_unix_ns=node.launched_unix_ns,
                offset_ns=offset_ns,
                uncertainty_ns=uncertainty_ns,
                round_trips=len(one.trips),
                environment=facts,
                attempt=node.order.attempt,
            )
            write_record(node.place / of_repeat(READY_FILE, self.repeat), found)

    def _tell(self, gathering: Gathering) -> dict[str, Any]:
        ready = {one.node: one for one in gathering.partners if one.state is State.READY}
        if not ready:
            return {}
        start = agree(
            self.run_dir,
            ready,
            gathering.try_out_s(),
            # Before anything is measured: what nodes are does not change between their repeats.
            drift_fails=self.repeat == 1 and self._drift_fails,
            attempt=self._one.attempt,
            repeat=self.repeat,
        )
        self._require_likeness(ready.values(), start.drift)
        gathering.tell(
            {node: start.start_unix_ns + self.nodes[node].offset_ns for node in start.nodes},
            start.start_unix_ns + int(LATE_S * 1e9),
        )
        told = [node for node, one in ready.items() if one.state is State.TOLD]
        for node in set(start.nodes) - set(told):
            if ready[node].state is State.LEFT:
                lost = ready[node].lost or "took the word to start and gave no answer"
                self._leave(ready[node], unreachable(lost, self.nodes[node].address))
        return {"told": told, "told_ahead_s": round((start.start_unix_ns - time.time_ns()) / 1e9, 3)}

    @property
    def _one(self) -> RunOrder:
        return next(iter(self.nodes.values())).order

    @property
    def _drift_fails(self) -> bool:
        return self._one.resolved.settings.benchmark_drift == "fail"

    def _require_likeness(self, ready: Iterable[Partner], drift: Iterable[Drift]) -> None:
        for one in ready:
            if own := [each for each in drift if any(one.node in names for names in each.values.values())]:
                show(one.node, "not alike, stopped")
                told = f"Drift, and benchmark_drift is fail: {drift_reason(own)} Nothing was measured."
                self._leave(one, told)

    def _leave(self, one: Partner, reason: str, file: str = BEHIND) -> None:
        one.state, self.nodes[one.node].left = State.LEFT, True
        write_atomic(self.nodes[one.node].place / file, reason)


def _want_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS + DESCRIPTORS_PER_NODE * count
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
