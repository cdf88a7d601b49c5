"""Action `benchmark_open`: open the run on the controller - its directory, run.json, and an order for each node."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context, release
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import resolve_play

from benchmark.cluster.together import measures, patience_s
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.rundir import NODES, ORDER, RunOrder, open_run


class ActionModule(NodeAction):
    """Runs once. In check mode nothing is made and the run has no directory."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return `run_id` and `dir` (absolute), both empty in check mode; `synchronized`: whether nodes wait."""
        if self.check_mode:
            return {"changed": False, "run_id": "", "dir": "", "synchronized": False}
        resolved = resolve_play(self.task_vars)
        hostvars = self.task_vars["hostvars"]
        os.chdir(CHECKOUT)  # relative settings mean the checkout, wherever ansible-playbook was called
        try:
            run_id, directory = open_run(
                resolved,
                command=_command_line(),
                versions={"ansible-core": release.__version__},
                hosts={node: str(hostvars[node].get("ansible_host", node)) for node in resolved},
            )
        except InputError as error:
            raise NodeFailure(str(error)) from error
        wait_s = patience_s(list(resolved.values()))
        for node, settings in resolved.items():
            place = directory / NODES / node
            place.mkdir()
            waits = wait_s if measures(settings) else None
            write_record(place / ORDER, RunOrder(run_id=run_id, node=node, resolved=settings, wait_s=waits))
        return {"changed": True, "run_id": run_id, "dir": str(directory), "synchronized": wait_s is not None}


def _command_line() -> str:
    """Return the command to run it again; the values of -e that may be secret are left out."""
    words = ["ansible-playbook", *context.CLIARGS.get("args", ())]
    for source in context.CLIARGS.get("inventory") or ():
        words += ["-i", source]
    if context.CLIARGS.get("subset"):
        words += ["--limit", context.CLIARGS["subset"]]
    for extra in context.CLIARGS.get("extra_vars") or ():
        text = extra.decode() if isinstance(extra, bytes) else str(extra)
        words += ["-e", text if _harmless(text) else "..."]
    return shlex.join(words)


def _harmless(extra: str) -> bool:
    """Tell whether a word of -e sets benchmark_* variables only (or names a file): nothing else is written down."""
    return extra.startswith("@") or all(word.startswith("benchmark_") and "=" in word for word in shlex.split(extra))
