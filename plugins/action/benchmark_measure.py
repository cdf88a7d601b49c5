"""Action `benchmark_measure`: start the nodes' runs, measure on all together, fetch the results.

It runs once for all nodes; the work is in `benchmark.fleet`.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from descriptors import want_descriptors
from interruption import interrupted_by, run_interruptible
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import nodes, secrets_of
from reports import at_stage, finished, hand_on, show
from run_lock import lock_node_dir, until_parent_is_gone

from benchmark.cluster.interruption import keep_interruption
from benchmark.cluster.one_system import where
from benchmark.files import read_record
from benchmark.fleet.errors import ControllerGone
from benchmark.fleet.groups import GroupedMeasurement
from benchmark.fleet.measure import Measurement, Outcome
from benchmark.fleet.node import Node, Reports
from benchmark.fleet.ssh import Ssh
from benchmark.fleet.system import SystemMeasurement
from benchmark.provisioned import PROVISIONING_ROLES
from benchmark.records import DRIVER, System
from benchmark.rundir import NODES, ORDER, RunOrder, read_run
from benchmark.settings.nodes import needed_nodes
from benchmark.visible_devices import NAME as VISIBLE
from benchmark.words import plural

# Variables that earlier roles register for a node, and that show whether one of them failed there.
BEFORE = ("preflight_node", *(f"{role}_made" for role in PROVISIONING_ROLES))


class ActionModule(NodeAction):
    """Needs `dir`, the run's directory on the controller. Skips nodes that failed in an earlier role."""

    _requires_connection = False
    # It handles Ctrl-C itself, since it must stop the nodes.
    interruptible = False

    def act(self) -> dict[str, Any]:
        """Return `dir`, the nodes whose files were `fetched`, and the `failures` of others, by node.

        This task does not fail those nodes, since it is one task for all; their `failure.json` has the reason.
        """
        if self.check_mode:
            would = [name for name in nodes(self.task_vars) if not _failed_before(self.task_vars["hostvars"][name])]
            limit_s, work_dir = self.setting("benchmark_timeout_s"), self.setting("benchmark_work_dir")
            results = f"results would go to {self.setting('benchmark_results_dir')} on the controller"
            show(plural(len(would), "node"), f"would measure, each for {limit_s} s at most in {work_dir}; {results}")
            return {"changed": bool(would), "would": would, "dir": "", "fetched": [], "failures": {}}
        outcome = self._measure() if self._todo else Outcome()
        if outcome.interrupted:
            keep_interruption(self.run_dir, interrupted_by())
        # The driver is not a node: its outcome is in the summary, and in its own failure.json.
        fetched = sorted(name for name in outcome.fetched if name in self._todo)
        failures = {name: reason for name, reason in outcome.failures.items() if name in self._todo}
        return {"changed": bool(self._todo), "dir": str(self.run_dir), "fetched": fetched, "failures": failures}

    def _measure(self) -> Outcome:
        measurement = self._measurement()
        try:
            return run_interruptible(measurement.run(until_parent_is_gone), measurement.interrupt)
        except ControllerGone:
            raise NodeFailure("The ansible-playbook that this worker belongs to is gone.") from None

    def _measurement(self) -> Measurement:
        how: dict[str, Any] = {"finished": finished, "interruption": lambda: self.interruption}
        system = read_run(self.run_dir).system
        if system is None:
            each = [self._node(name, variables) for name, variables in self._todo.items()]
            kind = GroupedMeasurement if any(node.order.group for node in each) else Measurement
            return kind(self.run_dir, each, Reports(hand_on, show), **how)
        # Made for this attempt and stored nowhere: it gives access to the nodes' servers.
        given = {key for one in self._todo.values() if (key := secrets_of(one).api_key)}
        key = given.pop() if given else secrets.token_urlsafe(32)
        each = [self._node(name, variables, key) for name, variables in self._todo.items()]
        asked = next(iter(self._todo.values()))
        driver = self._driver(system, asked if not system.driver else self.task_vars["hostvars"][system.driver], key)
        min_nodes = system.resolved.settings.benchmark_min_nodes
        needed = needed_nodes(min_nodes, len(system.servers))
        return SystemMeasurement(
            self.run_dir, [*each, driver], Reports(hand_on, show), needed=needed, where=where(system), **how
        )

    def _driver(self, system: System, variables: Mapping[str, Any], key: str) -> Node:
        """Return the driver: on a node, or here with the current Python."""
        place, own = self.run_dir / DRIVER, secrets_of(variables)
        order = read_record(place / ORDER, RunOrder)
        if system.driver:
            ssh = self.connections.ssh_to(system.driver, variables)
        else:
            own = replace(own, environment={})
            path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
            ssh = Ssh("this machine", lambda line: ["env", f"PYTHONPATH={path}", "/bin/sh", "-c", line])
        return Node(DRIVER, ssh, order, place, replace(own, api_key=key).line())

    def _node(self, name: str, variables: Mapping[str, Any], key: str = "") -> Node:
        place = self.run_dir / NODES / name
        order = read_record(place / ORDER, RunOrder)
        own = secrets_of(variables)
        own = replace(own, api_key=key) if key else own
        chosen = VISIBLE in own.environment
        return Node(name, self.connections.ssh_to(name, variables), order, place, own.line(), chosen)

    @property
    def run_dir(self) -> Path:
        """The run's directory on the controller."""
        return Path(str(self._task.args["dir"]))

    def alone(self) -> AbstractContextManager[Any]:
        """Lock all nodes' directories of the run: a worker of a killed ansible-playbook may still use them."""
        stack = ExitStack()
        self._todo: dict[str, Mapping[str, Any]] = {}
        if self.check_mode:
            return stack
        want_descriptors(len(nodes(self.task_vars)))
        for name in nodes(self.task_vars):
            variables = self.task_vars["hostvars"][name]
            if name in self.task_vars["benchmark_run"]["done"] or _failed_before(variables):
                continue
            stack.enter_context(lock_node_dir(self.run_dir / NODES / name))
            self._todo[name] = variables
            at_stage(name, self.stage)
        if self._todo and (self.run_dir / DRIVER).is_dir():
            stack.enter_context(lock_node_dir(self.run_dir / DRIVER))
        return stack


def _failed_before(variables: Mapping[str, Any]) -> bool:
    return any((variables.get(name) or {}).get("failed") for name in BEFORE)
