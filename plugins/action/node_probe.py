"""Action `node_probe`: ask all nodes at once the first questions of preflight and the provisioning roles.

It runs once. Nodes whose answers show that nothing must be done need no task or worker of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.errors import AnsibleError
from ansible.plugins.loader import action_loader
from ansible.utils.display import Display
from descriptors import want_descriptors
from environment_action import EnvironmentAction
from interruption import run_interruptible
from node_action import NodeAction, NodeFailure
from play_settings import nodes
from reports import at_stage

from benchmark.cluster.machines import listed_twice
from benchmark.cluster.preflight import Probe
from benchmark.cluster.preflight_table import Found, found, table
from benchmark.fleet.probe import ProbeResult, probe
from benchmark.fleet.ssh import Ssh
from benchmark.provisioned import ENGINES, PROVISIONING_ROLES

# The roles that ask, each with the action of its name; the engines share one.
PREFLIGHT, ENGINE_ENV = "preflight", "engine_env"
ROLES = (PREFLIGHT, *PROVISIONING_ROLES)
# Load once, in the process that forks the workers; see before_forks.
for _action in (ENGINE_ENV, *ROLES):
    if _action not in ENGINES:
        action_loader.get(_action, class_only=True)


class ActionModule(NodeAction):
    """Changes nothing, and fails for no node: the role concerned reports what is wrong with a node."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return by node `settled`, the roles that have nothing to do there, and `failures`, why it is unfit.

        `lacking` are the nodes that are unfit, or where a role has something to do.
        """
        done = set(self.task_vars.get("benchmark_run", {}).get("done", ()))
        roles = {node: self._roles_of(node) for node in nodes(self.task_vars) if node not in done}
        want_descriptors(len(roles))
        for node in roles:
            at_stage(node, PREFLIGHT)
        asked: dict[str, tuple[Ssh, tuple[str, ...]]] = {}
        for node, actions in roles.items():
            try:
                commands = dict.fromkeys(_questions(actions.values()))
                asked[node] = (self.connections.ssh_to(node, self.task_vars["hostvars"][node]), tuple(commands))
            except AnsibleError:
                continue  # such as a bad variable of the node: its own task reports it
        results = run_interruptible(probe(asked))
        settled: dict[str, list[str]] = {node: list(ROLES) for node in done}
        failures: dict[str, str] = {}
        twice = self._listed_twice(roles, results)
        for node, result in results.items():
            settled[node], reason = _judge(roles[node], result)
            if reasons := [words for words in (result.failure, twice.get(node), reason) if words]:
                settled[node], failures[node] = [], "\n".join(reasons)
        for line in table(self._found(roles, results)):
            Display().display(line)
        lacking = [node for node, actions in roles.items() if not set(actions) <= set(settled.get(node, ()))]
        # `done`: in a resumed run, nodes with nothing left to do.
        return {
            "changed": False,
            "settled": settled,
            "done": sorted(done),
            "failures": failures,
            "lacking": lacking,
        }

    def _found(
        self, roles: Mapping[str, Mapping[str, NodeAction]], results: Mapping[str, ProbeResult]
    ) -> dict[str, Found]:
        """Return what was found on each node that answered."""
        each = {}
        for node, result in results.items():
            action = roles[node][PREFLIGHT]
            command = next(iter(_questions([action])), "")
            if command in result.answers:
                probed = Probe.parse(result.answers[command])
                there = probed.values.get("clock_ns", "")
                ahead_s = (
                    (int(there) - result.heard_ns[command]) / 1e9 if there.isdecimal() and len(there) < 20 else None
                )
                each[node] = found(probed, action.device, ahead_s)
        return each

    def _listed_twice(
        self, roles: Mapping[str, Mapping[str, NodeAction]], results: Mapping[str, ProbeResult]
    ) -> dict[str, str]:
        """Return a sentence for each node that is the same machine as another one."""
        machines = {}
        for node, result in results.items():
            with suppress(NodeFailure, AnsibleError):
                if (machine := roles[node][PREFLIGHT].machine(result.answers)) is not None:
                    machines[node] = machine
        return listed_twice(machines)

    def _roles_of(self, node: str) -> dict[str, NodeAction]:
        wanted = self.task_vars.get("preflight_settings", {}).get("engines", {})
        names = [role for role in ROLES if role not in ENGINES or node in wanted.get(role, {})]
        return {name: self._action(name, self.task_vars["hostvars"][node]) for name in names}

    def _action(self, name: str, variables: Mapping[str, Any]) -> NodeAction:
        action: NodeAction = self._shared_loader_obj.action_loader.get(
            ENGINE_ENV if name in ENGINES else name,
            task=self._task,
            play_context=self._play_context,
            loader=self._loader,
            shared_loader_obj=self._shared_loader_obj,
            templar=self._templar,
            connection=self._connection,
        )
        action.task_vars = variables
        if isinstance(action, EnvironmentAction):
            action.settings = name
        return action


def _judge(actions: Mapping[str, NodeAction], result: ProbeResult) -> tuple[list[str], str]:
    """Return the roles that have nothing to do on a node, and why it is unfit (or an empty text)."""
    settled = []
    for role, action in actions.items():
        try:
            if action.settled(result.answers) is not None:
                settled.append(role)
        except (NodeFailure, AnsibleError) as failure:
            if role == PREFLIGHT:
                return settled, str(failure)
    return settled, ""


def _questions(actions: Iterable[NodeAction]) -> Iterable[str]:
    for action in actions:
        try:
            yield from action.questions()
        except NodeFailure:
            return  # the role itself reports it
