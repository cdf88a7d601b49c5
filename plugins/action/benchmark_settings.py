"""Action `benchmark_settings`: the controller's own checks, before any node is touched."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context, release
from ansible.errors import AnsibleError
from ansible.utils.display import Display
from connections import SESSIONS, connection_kind
from node_action import CHECKOUT, NodeAction, NodeFailure, raw_variables
from play_settings import Play, nodes, prometheus_dir_of, resolve_play

from benchmark.cluster.given_names import files_of_nobody, unread
from benchmark.cluster.groups import gpus_of_part
from benchmark.cluster.inventory import PROMETHEUS_DIR, require_writable
from benchmark.cluster.names import some
from benchmark.cluster.packages.wheelhouse import on_controller, require_pins
from benchmark.errors import InputError
from benchmark.provisioned import ENGINES
from benchmark.settings import ResolvedSettings

OLDEST, BELOW = (2, 19), (2, 22)
# Environment variables for installing and downloading on the nodes; may contain a proxy password.
ENVIRONMENT = "node_environment"
# Files in env/ of ansible-runner's directory: one call writes them, and the next one reads them.
RUNNER_FILES = ("extravars", "cmdline")


class ActionModule(NodeAction):
    """Raises NodeFailure with every problem: ansible-core's version, names, types and ranges, unknown profiles.

    `measures`: whether the play measures the nodes, rather than only checking or provisioning them.
    """

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return the nodes' profiles, and the GPUs for one model copy by provisioned engine and node.

        Also whether the play's nodes are `measurable`: not if others of their group or system are missing.
        """
        version = tuple(int(part) for part in release.__version__.split(".")[:2])
        if not OLDEST <= version < BELOW:
            raise NodeFailure(
                f"ansible-core is {release.__version__}; {'.'.join(map(str, OLDEST))} or newer and below "
                f"{'.'.join(map(str, BELOW))} is needed: install requirements.txt."
            )
        _name_what_runner_keeps()
        self._name_what_has_no_effect()
        play = self._play()
        resolved = play.resolved
        if shared := [node for node, r in resolved.items() if r.settings.benchmark_shared_machine]:
            Display().display(
                f"benchmark_shared_machine is true [{some(shared)}]: this run does not wait for other runs that set it "
                "too, and results are marked SHARED MACHINE."
            )
        return {
            "changed": False,
            "measurable": play.measurable,
            "profiles": sorted({r.profile.name for r in resolved.values()}),
            "engines": {
                name: {
                    node: gpus_of_part(engine, r, resolved, play.groups_outside)
                    for node, r in resolved.items()
                    if r.profile.engine == name
                }
                for name, engine in ENGINES.items()
            },
        }

    def _name_what_has_no_effect(self) -> None:
        """Warn of inventory variables with almost the name of a setting, and of variable files that nothing reads."""
        groups, raw = self.task_vars["groups"], raw_variables(self.task_vars, nodes(self.task_vars))
        # A single word (model, profile) is more likely to be meant for another playbook of the inventory's owner.
        names = {str(name) for variables in raw for name in variables if "_" in name}
        for sentence in unread(names, raw):
            Display().warning(sentence)
        for sentence in files_of_nobody(context.CLIARGS.get("inventory") or (), groups, groups.get("all", ())):
            Display().warning(sentence)

    def _play(self) -> Play:
        """Return every node's settings. Raises NodeFailure with all problems, of every kind."""
        play = Play({}, {}, {}, ())
        problems = self._connection_problems()
        try:
            play = resolve_play(self.task_vars, self._loader, bool(self._task.args.get("measures")))
        except NodeFailure as failure:
            problems += str(failure).splitlines()
        except AnsibleError:
            if not problems:  # otherwise it is a variable without a value, which is named already
                raise
        problems += [*_wheelhouse_problems(play.resolved.values()), *self._prometheus_problems()]
        problems += self._environment_problems()
        if problems:
            raise NodeFailure("\n".join(dict.fromkeys(problems)))
        return play

    def _connection_problems(self) -> list[str]:
        """Return problems of variables of Ansible's own (ansible_user: "{{ ... }}") that cannot be templated.

        And of connections that do not support sessions.
        """
        found: list[str] = []
        for node in nodes(self.task_vars):
            variables, before = self.task_vars["hostvars"][node], len(found)
            for name in sorted(name for name in variables if name.startswith("ansible_")):
                try:
                    variables[name]
                except AnsibleError as error:
                    found.append(f"{node}: {name} has no value: {' '.join(str(error).split())}.")
            if len(found) == before and (kind := connection_kind(self, variables)) not in SESSIONS:
                found.append(f"{node}: ansible_connection is {kind}: only ssh and local are supported.")
        return found

    def _environment_problems(self) -> list[str]:
        """Return problems of the environment for installing and downloading; ansible-core would ignore a bad one."""
        found: list[str] = []
        for node in nodes(self.task_vars):
            try:
                given = self.task_vars["hostvars"][node].get(ENVIRONMENT)
            except AnsibleError as error:
                found.append(f"{node}: {ENVIRONMENT} has no value: {' '.join(str(error).split())}.")
                continue
            each = given if isinstance(given, list) else [given]
            if not all(one is None or isinstance(one, Mapping) for one in each):
                found.append(
                    f"{ENVIRONMENT} must be a dictionary of names and values; with -e, give it as JSON: "
                    f"""-e '{{"{ENVIRONMENT}": {{"NAME": "VALUE"}}}}'. [{node}]"""
                )
        return found

    def _prometheus_problems(self) -> list[str]:
        """Return the problem if the directory for Prometheus does not exist or cannot be written."""
        try:
            if directory := prometheus_dir_of(self.task_vars):
                require_writable(PROMETHEUS_DIR, directory)
        except InputError as error:
            return str(error).splitlines()
        return []


def _wheelhouse_problems(nodes: Iterable[ResolvedSettings]) -> Iterator[str]:
    """Yield a problem for each wheelhouse that does not exist or lacks a pinned package."""
    wanted = set()
    for settings, engine in ((r.settings, r.profile.engine) for r in nodes):
        if settings.python_env_manage:
            wanted.add(("python_env", settings.python_env_wheelhouse, settings.python_env_requirements))
        if (own := ENGINES.get(engine)) and own.setting(settings, "manage"):
            wanted.add((engine, own.setting(settings, "wheelhouse"), own.setting(settings, "requirements")))
    for prefix, given, pins in sorted(wanted):
        if not given:
            continue
        file = CHECKOUT / Path(pins).expanduser()
        try:
            require_pins(on_controller(CHECKOUT, given), file.read_text(encoding="utf-8"), pins)
        except InputError as error:
            yield from str(error).splitlines()
        except OSError as error:
            yield f"{prefix}_requirements: {file}: {error.strerror}."


def _name_what_runner_keeps() -> None:
    """Warn of files that an earlier call of ansible-runner in the checkout left, and that affect this one too."""
    artifacts = os.environ.get("AWX_ISOLATED_DATA_DIR")
    if artifacts is None or CHECKOUT / "artifacts" not in Path(artifacts).resolve().parents:
        return
    for path in (CHECKOUT / "env" / name for name in RUNNER_FILES):
        if path.is_file():
            written = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            Display().warning(
                f"ansible-runner applies {path} to this run; it was written at {written}: remove it unless it is meant "
                "for this run (suppress_env_files=True, or --omit-env-files, writes no such files)."
            )
