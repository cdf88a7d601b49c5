"""The steps that provide a node with what a run needs, and whether any of them has something to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ansible.plugins.loader import action_loader
from looks import Looks
from node_action import NodeAction, NodeFailure

# Each is an action, and has the name of the role that a failure in it is told of.
PREFLIGHT, VLLM = "preflight", "vllm"
STEPS = (PREFLIGHT, "python_env", VLLM, "hf_cache")
# Loaded once, in the process that forks the workers; see before_forks.
for _step in STEPS:
    action_loader.get(_step, class_only=True)


def steps_of(node: str, task_vars: Mapping[str, Any]) -> list[str]:
    """Return the names of the steps that the node takes."""
    return [step for step in STEPS if step != VLLM or node in task_vars["preflight_settings"]["vllm"]]


def make_step(name: str, parent: NodeAction, variables: Mapping[str, Any], connection: Any) -> NodeAction:
    """Return the action as a part of `parent`, for the node that the variables and the connection belong to."""
    action: NodeAction = parent._shared_loader_obj.action_loader.get(
        name,
        task=parent._task,
        play_context=parent._play_context,
        loader=parent._loader,
        shared_loader_obj=parent._shared_loader_obj,
        templar=parent._templar,
        connection=connection,
    )
    action.task_vars = variables
    return action


class MoreToAsk(Exception):
    """More would have to be asked of the node than the looks tell."""


class NotConnected:
    """In the place of a connection: whoever would use it raises MoreToAsk."""

    def __getattr__(self, name: str) -> Any:
        raise MoreToAsk


class Preparation:
    """Tells whether a node has all that it needs, from what it says when it is looked at."""

    def __init__(self, parent: NodeAction, node: str, variables: Mapping[str, Any]) -> None:
        names = steps_of(node, parent.task_vars)
        self._steps = [make_step(name, parent, variables, NotConnected()) for name in names]

    @cached_property
    def looks(self) -> Looks:
        """What the node is asked. Raises AnsibleError where a variable of the node cannot be templated."""
        return Looks.of(_commands(self._steps))

    def is_done(self, said: str) -> bool:
        """Tell whether no step has anything to do, or to complain of, by what the looks printed."""
        heard = self.looks.heard(said)
        for step in self._steps:
            step.heard = heard
            try:
                if step.act()["changed"]:
                    return False
            except (MoreToAsk, NodeFailure):
                return False
        return True


def _commands(steps: Iterable[NodeAction]) -> Iterable[str]:
    for step in steps:
        try:
            yield from step.looks()
        except NodeFailure:
            return
