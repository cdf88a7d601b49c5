"""An environment on the node that exists already, and that a role only looks at: nothing of it is ever changed."""

from __future__ import annotations

import shlex
from pathlib import Path

from node_action import CHECKOUT, NodeAction

from benchmark.cluster.packages.environments import Wanted
from benchmark.cluster.packages.existing import Asked, Found, lacks, needed, needed_by_engine
from benchmark.installed import OURS
from benchmark.provisioned import ENGINES

INSTALLED = (CHECKOUT / "benchmark/installed.py").read_text(encoding="utf-8")
# From /, since Python imports from where it is started; without leaving compiled files beside what it imports.
# PYTHONPATH as our own code is found by it.
LOOK = (
    'case $1 in "~/"*) p=$HOME/${1#"~/"} ;; *) p=$1 ;; esac; shift; cd / && '
    f'PYTHONPATH={OURS}"${{PYTHONPATH:+:$PYTHONPATH}}" exec timeout 60 "$p" -B "$@"'
)


class ExistingEnvironment:
    """What a role looks for in one. Raises NodeFailure for settings that are not understood."""

    def __init__(self, action: NodeAction, wanted: Wanted) -> None:
        self._wanted = wanted
        self._device = action.device
        if engine := ENGINES.get(wanted.settings):
            self._needed = needed_by_engine(engine)
            return
        probes, own_dataset = (
            action.setting("benchmark_probes") != "off",
            bool(action.setting("benchmark_dataset_path")),
        )
        self._needed = needed(Asked(action.profile, self._device, probes, own_dataset))

    @property
    def question(self) -> str:
        """The command that looks, which starts a Python."""
        names = [one.name for one in self._needed]
        return shlex.join(["sh", "-c", LOOK, "look", self._wanted.python, "-c", INSTALLED, *names])

    def problems(self, code: int, out: str, err: str) -> list[str]:
        """Return why the environment will not do, by the command's exit code and what it printed; a sentence each."""
        role, directory = self._wanted.settings, self._wanted.existing
        found = Found.parse(out) if code == 0 else None
        if found is None:
            said = " ".join((err or out).split())[-300:]
            return [
                f"{role}_manage is false, so {directory} ({role}_dir) must be an existing environment, and "
                f"{Path(self._wanted.python)} does not start there ({code}){': ' if said else '.'}{said}"
            ]
        return list(lacks(found, self._needed, role, directory, self._device))
