"""Action `node_prepare`: what the roles preflight, python_env, vllm and hf_cache do to a node, one after the other.

In the whole job they are one task, since each task costs the controller a process per node, also where there is nothing
to do.
"""

from __future__ import annotations

import secrets
import shlex
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
        with_vllm = self.node in self.task_vars["preflight_settings"]["vllm"]
        steps = {name: self._action(name) for name in STEPS if name != VLLM or with_vllm}
        heard: dict[str, str] = {}
        done: dict[str, Any] = {}
        for self.step, action in steps.items():
            if live_channel.channel is not None:
                live_channel.channel.send(self.node, Told(self.step))
            heard = heard or self._ask([look for step in steps.values() for look in step.looks()])
            action.heard = heard
            done[self.step] = action.act()
        return {"changed": any(result["changed"] for result in done.values()), **done}

    def _ask(self, looks: list[str]) -> dict[str, str]:
        """Ask for all looks at once, and return what those printed that succeeded.

        Where nothing has to be done, and so on most runs, one contact with the node tells it.
        """
        end = secrets.token_hex(8)
        script = f'for look in "$@"; do eval "$look" 2> /dev/null; echo "{end} $?"; done'
        _, out, _ = self.shell(shlex.join(["sh", "-c", script, "looks", *looks]))
        answers = out.split(f"{end} ")
        # Each begins with how the one before it ended.
        codes = [answer.partition("\n")[0] for answer in answers[1:]]
        texts = [answers[0], *(answer.partition("\n")[2] for answer in answers[1:])]
        return {look: text for look, text, code in zip(looks, texts, codes, strict=False) if code == "0"}

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
