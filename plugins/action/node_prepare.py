"""Action `node_prepare`: what the roles preflight, python_env, vllm and hf_cache do to a node, one after the other.

In the whole job they are one task, since each task costs the controller a process per node, also where there is nothing
to do. So is what comes before a run that is resumed, to look what an earlier attempt left; and the start of what waits
for nobody: a task that also waits for the end would let only as many nodes begin as there are forks.
"""

from __future__ import annotations

import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import live_channel
from ansible.plugins.loader import action_loader
from node_action import NodeAction

from benchmark.progress import Told

# Each is an action, and has the name of the stage that a failure in it is told of.
VLLM, START = "vllm", "benchmark_start"
STEPS = {"preflight": "preflight", "python_env": "python_env", VLLM: VLLM, "hf_cache": "hf_cache", START: "benchmark"}
# Loaded once, in the process that forks the workers; see before_forks.
for _step in STEPS:
    action_loader.get(_step, class_only=True)


class ActionModule(NodeAction):
    """Needs `dir`, the run's directory on the controller. Ends with the first step that fails, as a play would."""

    step = next(iter(STEPS))
    steps: Mapping[str, NodeAction] = MappingProxyType({})

    def act(self) -> dict[str, Any]:
        """Return `changed`, and what each step returned under its name."""
        left_out = set()
        if self.node not in self.task_vars["preflight_settings"]["vllm"]:
            left_out.add(VLLM)
        run = self.task_vars["benchmark_run"]
        if not run["settings_from"] and self.node not in run["by_themselves"]:
            left_out.add(START)
        steps = self.steps = {name: self._action(name) for name in STEPS if name not in left_out}
        heard: dict[str, str] = {}
        done: dict[str, Any] = {}
        for self.step, action in steps.items():
            if live_channel.channel is not None:
                live_channel.channel.send(self.node, Told(self.stage))
            heard = heard or self._ask([look for step in steps.values() for look in step.looks()])
            action.heard = heard
            with action.alone():
                done[self.step] = action.act()
        # That a run was started changes nothing of what the node has.
        return {"changed": any(result["changed"] for name, result in done.items() if name != START), **done}

    def after_interruption(self) -> dict[str, Any]:
        """Leave the node as the step leaves it."""
        step = self.steps.get(self.step)
        return step.after_interruption() if step else super().after_interruption()

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
        """The role of the step."""
        return STEPS[self.step]

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
