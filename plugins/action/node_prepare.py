"""Action `node_prepare`: what the roles preflight, python_env, vllm and hf_cache do to a node, one after the other.

In the whole job they are one task, since each task costs the controller a process per node, also where there is nothing
to do. So is what comes before a run that is resumed, to look what an earlier attempt left; and the start of what waits
for nobody: a task that also waits for the end would let only as many nodes begin as there are forks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import live_channel
from ansible.plugins.loader import action_loader
from looks import Looks
from node_action import NodeAction
from preparation import PREFLIGHT, make_step, steps_of

from benchmark.progress import Told

# The last step, and the role that a failure in it is told of.
START, BENCHMARK = "benchmark_start", "benchmark"
action_loader.get(START, class_only=True)


class ActionModule(NodeAction):
    """Needs `dir`, the run's directory on the controller. Ends with the first step that fails, as a play would."""

    step = PREFLIGHT
    steps: Mapping[str, NodeAction] = MappingProxyType({})

    def act(self) -> dict[str, Any]:
        """Return `changed`, and what each step returned under its name."""
        run, names = self.task_vars["benchmark_run"], steps_of(self.node, self.task_vars)
        if run["settings_from"] or self.node in run["by_themselves"]:
            names.append(START)
        steps = self.steps = {name: make_step(name, self, self.task_vars, self._connection) for name in names}
        heard: dict[str, str] = {}
        done: dict[str, Any] = {}
        for self.step, action in steps.items():
            if live_channel.channel is not None:
                live_channel.channel.send(self.node, Told(self.stage))
            heard = heard or self._ask(Looks.of(look for step in steps.values() for look in step.looks()))
            action.heard = heard
            with action.alone():
                done[self.step] = action.act()
        # That a run was started changes nothing of what the node has.
        return {"changed": any(result["changed"] for name, result in done.items() if name != START), **done}

    def after_interruption(self) -> dict[str, Any]:
        """Leave the node as the step leaves it."""
        step = self.steps.get(self.step)
        return step.after_interruption() if step else super().after_interruption()

    def _ask(self, looks: Looks) -> dict[str, str]:
        _, out, _ = self.shell(looks.command)
        return looks.heard(out)

    @property
    def stage(self) -> str:
        """The role of the step."""
        return BENCHMARK if self.step == START else self.step
