"""Action `benchmark_open`: open the run on the controller - its directory, run.json, and an order for each node."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context, release
from ansible.utils.display import Display
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import Play, resolve_play
from run_lock import warn_without_locks

from benchmark.cluster.attempts import open_attempt
from benchmark.cluster.estimated_duration import estimated_durations
from benchmark.cluster.resume import controller, remaining
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.fleet.rendezvous import measures, patience_s, repeats_s, turns_s
from benchmark.records import RunRecord
from benchmark.rundir import NODES, ORDER, RunOrder, open_run
from benchmark.settings import ResolvedSettings
from benchmark.variables import SECRETS


class ActionModule(NodeAction):
    """Runs once. In check mode nothing is made and a new run has no directory.

    With benchmark_resume no run is opened: a further attempt is made at those nodes of one that have no result yet.
    """

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return `run_id` and `dir` (absolute), both empty in check mode.

        And of a run that is resumed: `settings_from`, its directory, and `done`, the nodes that nothing is asked of.
        """
        play = resolve_play(self.task_vars, self._loader)
        asked = next(iter(play.resolved.values())).settings.benchmark_fail_on_invalid
        given = next(iter(play.given.values())).get("benchmark_fail_on_invalid", asked)
        reported = {"changed": not self.check_mode, "settings_from": "", "done": [], "fail_on_invalid": given}
        try:
            if play.run is None or play.run_dir is None:
                return reported | ({"run_id": "", "dir": ""} if self.check_mode else self._new(play))
            return reported | self._further(play, play.run_dir, play.run)
        except InputError as error:
            raise NodeFailure(str(error)) from error

    def _new(self, play: Play) -> dict[str, Any]:
        os.chdir(CHECKOUT)  # relative settings mean the checkout, wherever ansible-playbook was called
        run_id, directory = open_run(
            play.resolved,
            command=_command_line(),
            versions={"ansible-core": release.__version__},
            hosts=play.hosts,
            on_command_line=play.on_command_line,
            controller=controller(os.getppid()),
        )
        return self._order(run_id, directory, play.resolved, 1)

    def _further(self, play: Play, run_dir: Path, run: RunRecord) -> dict[str, Any]:
        left = remaining(run_dir, run, play.resolved, self.task_vars["groups"].get("gpu_nodes", ()))
        which = f"{_count(len(left.todo))} to measure, {_count(len(left.done))} complete and left alone"
        for sentence in (f"Resuming the run {run.run_id}: {which}.", *left.notes):
            Display().display(sentence)
        reported = {"settings_from": str(run_dir), "done": list(left.done)}
        todo = {node: play.resolved[node] for node in left.todo}
        if self.check_mode or not todo:
            known = {"run_id": run.run_id, "dir": "" if self.check_mode else str(run_dir)}
            return {**known, **reported, "changed": False}
        number = open_attempt(
            run_dir,
            run,
            todo,
            command=_command_line(),
            notes=left.notes,
            hosts={node: play.hosts[node] for node in todo},
            leader=controller(os.getppid()),
        )
        return self._order(run.run_id, run_dir, todo, number) | reported

    def _order(
        self, run_id: str, directory: Path, resolved: Mapping[str, ResolvedSettings], attempt: int
    ) -> dict[str, Any]:
        asked = list(resolved.values())
        wait_s, all_turns_s = patience_s(asked), turns_s(asked)
        more_s = all_turns_s + repeats_s(asked)
        warn_without_locks(directory)
        for sentence in estimated_durations(asked):
            Display().display(sentence)
        for node, settings in resolved.items():
            place = directory / NODES / node
            place.mkdir(exist_ok=attempt > 1)
            waits = measures(settings) and wait_s is not None
            order = RunOrder(
                run_id=run_id,
                node=node,
                attempt=attempt,
                resolved=settings,
                wait_s=(wait_s or 0) + more_s if waits else None,
                solo=waits and all_turns_s > 0,
                limit_s=settings.settings.benchmark_timeout_s + more_s if more_s else None,
            )
            write_record(place / ORDER, order)
        return {"run_id": run_id, "dir": str(directory)}


def _count(number: int) -> str:
    return f"{number} node" if number == 1 else f"{number or 'no'} nodes"


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
    """Return whether a word of -e sets benchmark_* variables only (or names a file): nothing else is written down."""
    names = [word.partition("=")[0] for word in shlex.split(extra) if "=" in word]
    settings = all(name.startswith("benchmark_") and name not in SECRETS for name in names)
    return extra.startswith("@") or (settings and len(names) == len(shlex.split(extra)))
