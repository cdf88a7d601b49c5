"""Action `node_probe`: ask all nodes at once what preflight and the provisioning roles look at first.

It runs once. Where a node's answers show that a role has nothing to do there, the role ends itself without a worker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.errors import AnsibleError
from ansible.plugins.loader import action_loader
from connections import ssh_to
from descriptors import want_descriptors
from environment_action import EnvironmentAction
from interruption import run_interruptible
from node_action import NodeAction, NodeFailure
from play_settings import nodes
from reports import at_stage

from benchmark.fleet.probe import ProbeResult, probe
from benchmark.fleet.ssh import Ssh
from benchmark.provisioned import ENGINES, PROVISIONING_ROLES

# The roles that ask, each by the action of its name; the engines' share one.
PREFLIGHT, ENGINE_ENV = "preflight", "engine_env"
ROLES = (PREFLIGHT, *PROVISIONING_ROLES)
# Loaded once, in the process that forks the workers; see before_forks.
for _action in (ENGINE_ENV, *ROLES):
    if _action not in ENGINES:
        action_loader.get(_action, class_only=True)


class ActionModule(NodeAction):
    """Changes nothing, and fails for no node: what is wrong with one is reported by the role that it concerns."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return `settled`, by role the nodes where it has nothing to do, and `failures`, why nodes are not fit."""
        done = set(self.task_vars.get("benchmark_run", {}).get("done", ()))
        roles = {node: self._roles_of(node) for node in nodes(self.task_vars) if node not in done}
        want_descriptors(len(roles))
        for node in roles:
            at_stage(node, PREFLIGHT)
        asked: dict[str, tuple[Ssh, tuple[str, ...]]] = {}
        for node, actions in roles.items():
            try:
                commands = dict.fromkeys(_questions(actions.values()))
                asked[node] = (ssh_to(self, node, self.task_vars["hostvars"][node]), tuple(commands))
            except AnsibleError:
                continue  # of a variable of the node's, say: its own task tells
        results = run_interruptible(probe(asked))
        settled: dict[str, list[str]] = {role: sorted(done) for role in ROLES}
        failures: dict[str, str] = {}
        for node, result in results.items():
            if reason := result.failure or self._judge(node, roles[node], result, settled):
                failures[node] = reason
        return {"changed": False, "settled": settled, "failures": failures}

    def _judge(
        self, node: str, actions: Mapping[str, NodeAction], result: ProbeResult, settled: Mapping[str, list[str]]
    ) -> str:
        """Add the node to the roles that have nothing to do there; return why it is not fit."""
        for role, action in actions.items():
            try:
                if action.settled(result.answers) is not None:
                    settled[role].append(node)
            except (NodeFailure, AnsibleError) as failure:
                if role == PREFLIGHT:
                    return str(failure)
        return ""

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


def _questions(actions: Iterable[NodeAction]) -> Iterable[str]:
    for action in actions:
        try:
            yield from action.questions()
        except NodeFailure:
            return  # the role says so itself
