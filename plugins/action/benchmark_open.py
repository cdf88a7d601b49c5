"""Action `benchmark_open`: open the run on the controller - its directory, run.json, and an order for each node."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context, release
from ansible.module_utils.common.text.converters import to_text
from ansible.utils.display import Display
from command_line import CommandLine, command_line
from environment_action import code_in, own_wheel
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import Play, nodes, resolve_play, secret_values
from run_lock import warn_without_locks

from benchmark.cluster.attempts import open_attempt
from benchmark.cluster.estimated_duration import estimated_durations
from benchmark.cluster.groups import limit_of_member_s, parts_of
from benchmark.cluster.leader import controller
from benchmark.cluster.names import some
from benchmark.cluster.one_system import limit_of_system_s, patience_of_system_s, system_of
from benchmark.cluster.packages.environments import Wanted
from benchmark.cluster.resume import remaining
from benchmark.code import code_of, code_words, installed_sha256
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.fleet.rendezvous import limit_on_node_s, measures, patience_s, repeats_s, turns_s
from benchmark.provisioned import ENGINES
from benchmark.records import DRIVER, Code, Owner, RunRecord, System
from benchmark.rundir import NODES, ORDER, RunOrder, open_run, user_name
from benchmark.settings import ResolvedSettings
from benchmark.words import plural

# Strategies without `run_once`: each node would do the work for all.
NODE_BY_NODE = ("free", "host_pinned")


class ActionModule(NodeAction):
    """Runs once. In check mode it makes nothing, and a new run has no directory.

    With benchmark_resume it opens a further attempt at a run, for the nodes that have no result yet.
    """

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return `run_id` and `dir` (absolute), both empty in check mode.

        For a resumed run also `settings_from`, its directory, and `done`, the nodes with nothing left to do.
        """
        self._require_all_together()
        play = resolve_play(self.task_vars, self._loader)
        # Before the directory changes: relative paths on the command line refer to the current one.
        self.command = self._command_line()
        asked = next(iter(play.resolved.values())).settings.benchmark_fail_on_invalid
        given = next(iter(play.given.values())).get("benchmark_fail_on_invalid", asked)
        reported = {"changed": not self.check_mode, "settings_from": "", "done": [], "fail_on_invalid": given}
        try:
            if play.run is None or play.run_dir is None:
                return reported | ({"run_id": "", "dir": ""} if self.check_mode else self._new(play))
            return reported | self._further(play, play.run_dir, play.run)
        except InputError as error:
            raise NodeFailure(str(error)) from error

    def _require_all_together(self) -> None:
        """Raise NodeFailure in a play that would measure all its nodes again for each node or batch."""
        strategy = self._task.get_play().strategy
        if strategy.rpartition(".")[2] in NODE_BY_NODE:
            said = f"strategy is {strategy}"
        elif set(self.task_vars["ansible_play_batch"]) != set(self.task_vars["ansible_play_hosts"]):
            said = "serial is set"
        else:
            return
        raise NodeFailure(
            f"{said}, but a run measures all nodes of a play together: remove it. To measure some of them, use "
            "--limit; with benchmark_solo_first each node also measures alone first."
        )

    def _new(self, play: Play) -> dict[str, Any]:
        self._hosts = play.hosts
        os.chdir(CHECKOUT)  # relative paths in settings refer to the checkout, wherever ansible-playbook was called
        code = self._code()
        run_id, directory = open_run(
            play.resolved,
            command=self.command.text,
            command_hides=self.command.hidden,
            versions={"ansible-core": release.__version__},
            hosts=play.hosts,
            inventory=self.task_vars["groups"].get("gpu_nodes", ()),
            on_command_line=play.on_command_line,
            controller=controller(os.getppid()),
            code=code,
            token=(token := secrets.token_hex(16)),
            system=(system := system_of(play.resolved, play.hosts)),
        )
        return self._order(run_id, directory, play.resolved, 1, code, token, system)

    def _code(self) -> Code:
        """Return the code that the nodes measure with: the role python_env installs it."""
        return code_of(CHECKOUT, code_in(own_wheel()))

    def _further(self, play: Play, run_dir: Path, run: RunRecord) -> dict[str, Any]:
        self._hosts = play.hosts
        left = remaining(run_dir, run, play.resolved, self.task_vars["groups"].get("gpu_nodes", ()))
        notes = left.notes
        if play.left_out:
            names = some(play.left_out, most=20)
            left_out = f"Left out by --limit when the run was opened, and still left out: {names}."
            notes += (f"{left_out} To add a node, name it in --limit.",)
        which = f"{_count(len(left.todo))} to measure, {_count(len(left.done))} complete and left alone"
        for sentence in (f"Resuming the run {run.run_id}: {which}.", *notes):
            Display().display(sentence)
        reported = {"settings_from": str(run_dir), "done": [*left.done, *play.left_out]}
        todo = {node: play.resolved[node] for node in left.todo}
        if self.check_mode or not todo:
            known = {"run_id": run.run_id, "dir": "" if self.check_mode else str(run_dir)}
            return {**known, **reported, "changed": False}
        code = self._code()
        number = open_attempt(
            run_dir,
            run,
            todo,
            command=self.command.text,
            notes=(*notes, *_other_code(run, code)),
            hosts={node: play.hosts[node] for node in todo},
            leader=controller(os.getppid()),
            code=code,
        )
        return self._order(run.run_id, run_dir, todo, number, code, run.token, run.system) | reported

    def _order(
        self,
        run_id: str,
        directory: Path,
        resolved: Mapping[str, ResolvedSettings],
        attempt: int,
        code: Code,
        token: str,
        system: System | None,
    ) -> dict[str, Any]:
        asked = list(resolved.values())
        wait_s, all_turns_s = patience_s(asked), turns_s(asked)
        more_s = all_turns_s + repeats_s(asked)
        warn_without_locks(directory)
        for sentence in estimated_durations(asked):
            Display().display(sentence)
        if system:
            self._order_system(run_id, directory, resolved, attempt, code, token, system)
            return {"run_id": run_id, "dir": str(directory)}
        parts = parts_of(resolved, self._hosts)
        for node, settings in resolved.items():
            place = directory / NODES / node
            place.mkdir(exist_ok=attempt > 1)
            waits = measures(settings) and wait_s is not None
            part = parts.get(node)
            leads = part is None or part.leads
            order = RunOrder(
                run_id=run_id,
                node=node,
                attempt=attempt,
                resolved=settings,
                owner=Owner(token=token, user=user_name(), host=socket.gethostname()),
                code=code,
                environments=_environments(settings),
                wait_s=(wait_s or 0) + more_s if waits else None,
                solo=waits and all_turns_s > 0,
                measurements=settings.measurements if leads else 1,
                limit_s=limit_on_node_s(settings, asked) if leads else limit_of_member_s(asked),
                group=part,
            )
            write_record(place / ORDER, order)
        return {"run_id": run_id, "dir": str(directory)}

    def _order_system(
        self,
        run_id: str,
        directory: Path,
        resolved: Mapping[str, ResolvedSettings],
        attempt: int,
        code: Code,
        token: str,
        system: System,
    ) -> None:
        """Write an order for each server, and the driver's."""
        asked = list(resolved.values())
        places = {place.node: place for place in system.servers if place.node in resolved}
        shared: dict[str, Any] = {
            "run_id": run_id,
            "attempt": attempt,
            "owner": Owner(token=token, user=user_name(), host=socket.gethostname()),
            "wait_s": patience_of_system_s(asked),
            "limit_s": limit_of_system_s(asked),
        }
        orders = {
            directory / NODES / node: RunOrder(
                **shared,
                node=node,
                resolved=settings,
                code=code,
                environments=_environments(settings),
                serves=places[node],
            )
            for node, settings in resolved.items()
        }
        own = system.driver == ""
        orders[directory / DRIVER] = RunOrder(
            **shared,
            node=DRIVER,
            resolved=system.resolved,
            # The controller's own Python uses the checkout's code, whether or not a wheel of it exists.
            code=code_of(CHECKOUT, installed_sha256()) if own else code,
            environments={} if own else _environments(resolved[system.driver]),
            drives=tuple(places.values()),
            measurements=system.resolved.measurements,
        )
        for place, order in orders.items():
            place.mkdir(exist_ok=attempt > 1)
            write_record(place / ORDER, order)

    def _command_line(self) -> CommandLine:
        known = self.task_vars["hostvars"]
        secrets = {value for node in nodes(self.task_vars) for value in secret_values(known[node])}
        extras = [to_text(extra) for extra in context.CLIARGS.get("extra_vars") or ()]
        return command_line(sys.argv, extras, checkout=CHECKOUT, cwd=Path.cwd(), secrets=secrets)


def _environments(asked: ResolvedSettings) -> dict[str, str]:
    """Return the fingerprints of the environments that a node needs.

    Unreadable files are reported by the role that makes the environment, and no run starts there.
    """
    found = {}
    for role in ("python_env", *([asked.profile.engine] if asked.profile.engine in ENGINES else [])):
        with suppress(OSError, InputError):
            found[role] = Wanted.of(role, functools.partial(getattr, asked.settings), CHECKOUT).fingerprint()
    return found


def _other_code(run: RunRecord, code: Code) -> Iterator[str]:
    """Yield a sentence if an earlier attempt used other code: its results are kept, and reported as drift."""
    earlier = {each.code.sha256: each.code for each in run.attempts if each.code}
    earlier.pop(code.sha256, None)
    if earlier:
        words = ", ".join(map(code_words, earlier.values()))
        yield f"Measured with code {code_words(code)}; earlier attempts with {words}."


def _count(number: int) -> str:
    return plural(number, "node") if number else "no nodes"
