"""Action `node_prepare`: what the roles preflight, python_env, vllm and hf_cache do to a node, one after the other.

In the whole job they are one task, since each task costs the controller a process per node, also where there is nothing
to do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import live_channel
from ansible.plugins.loader import action_loader
from node_action import NodeAction

from benchmark.progress import Told

# Each is an action, and the stage that a failure in it is told of.
VLLM = "vllm"
STEPS = ("preflight", "python_env", VLLM, "hf_cache")
# Loaded once, in the process that forks the workers; see before_forks.
for _step in STEPS:
    action_loader.get(_step, class_only=True)


class ActionModule(NodeAction):
    """Ends with the first step that fails, as a play would."""

    step = STEPS[0]

    def act(self) -> dict[str, Any]:
        """Return `changed`, and what each step returned under its name."""
        done: dict[str, Any] = {}
        for self.step in STEPS:
            if self.step == VLLM and self.node not in self.task_vars["preflight_settings"]["vllm"]:
                continue
            if live_channel.channel is not None:
                live_channel.channel.send(self.node, Told(self.step))
            done[self.step] = self._action(self.step).act()
        return {"changed": any(result["changed"] for result in done.values()), **done}

    @property
    def stage(self) -> str:
        """The step, which has the name of its role."""
        return self.step

    def _action(self, name: str) -> NodeAction:
        action: NodeAction = self._shared_loader_obj.action_loader.get(
            name,
            task=self._task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        action.task_vars = self.task_vars
        return action
