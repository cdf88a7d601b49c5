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
# Of installing and downloading on the nodes; a password of a proxy may be in it.
ENVIRONMENT = "node_environment"
# In env/, of the directory that ansible-runner is called in: what one call writes there, the next one reads.
RUNNER_FILES = ("extravars", "cmdline")


class ActionModule(NodeAction):
    """Raises NodeFailure with every problem: ansible-core's version, names, types and ranges, unknown profiles.

    `measures`: whether the nodes are to be measured, and not only looked at or provisioned.
    """

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return the profiles that the nodes will run, and by provisioned engine and node its GPUs for one copy.

        And whether the nodes of the play are `measurable`: not, where others of their group or system are missing.
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
                f"benchmark_shared_machine is true [{some(shared)}]: other runs for which it is set too are not waited "
                "for, and results are marked SHARED MACHINE."
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
        """Say which variables of the inventory nothing reads though a setting is named almost so, and which files."""
        groups, raw = self.task_vars["groups"], raw_variables(self.task_vars, nodes(self.task_vars))
        # A single word (model, profile) is more likely to be meant for another playbook of the inventory's owner.
        names = {str(name) for variables in raw for name in variables if "_" in name}
        for sentence in unread(names, raw):
            Display().warning(sentence)
        for sentence in files_of_nobody(context.CLIARGS.get("inventory") or (), groups, groups.get("all", ())):
            Display().warning(sentence)

    def _play(self) -> Play:
        """Return every node's settings. Raises NodeFailure with everything that is wrong, of whatever kind."""
        play = Play({}, {}, {}, ())
        problems = self._connection_problems()
        try:
            play = resolve_play(self.task_vars, self._loader, bool(self._task.args.get("measures")))
        except NodeFailure as failure:
            problems += str(failure).splitlines()
        except AnsibleError:
            if not problems:  # a variable that has no value, and was named
                raise
        problems += [*_wheelhouse_problems(play.resolved.values()), *self._prometheus_problems()]
        problems += self._environment_problems()
        if problems:
            raise NodeFailure("\n".join(dict.fromkeys(problems)))
        return play

    def _connection_problems(self) -> list[str]:
        """Return where a variable of Ansible's own (ansible_user: "{{ ... }}") cannot be templated.

        And connections other than those over which nodes are spoken with, in sessions that stay.
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
                found.append(f"{node}: ansible_connection is {kind}: only ssh and local can be used.")
        return found

    def _environment_problems(self) -> list[str]:
        """Return where the environment of installing and downloading is none: ansible-core would go on without it."""
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
                    f"{ENVIRONMENT} must be a dictionary of names and values; after -e only JSON gives one: "
                    f"""-e '{{"{ENVIRONMENT}": {{"NAME": "VALUE"}}}}'. [{node}]"""
                )
        return found

    def _prometheus_problems(self) -> list[str]:
        """Return whether the directory for Prometheus is not there or cannot be written."""
        try:
            if directory := prometheus_dir_of(self.task_vars):
                require_writable(PROMETHEUS_DIR, directory)
        except InputError as error:
            return str(error).splitlines()
        return []


def _wheelhouse_problems(nodes: Iterable[ResolvedSettings]) -> Iterator[str]:
    """Yield which wheelhouse is not there, or lacks a package that is pinned."""
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
    """Say which files of an earlier call of ansible-runner in the checkout have a say in this one too."""
    artifacts = os.environ.get("AWX_ISOLATED_DATA_DIR")
    if artifacts is None or CHECKOUT / "artifacts" not in Path(artifacts).resolve().parents:
        return
    for path in (CHECKOUT / "env" / name for name in RUNNER_FILES):
        if path.is_file():
            written = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            Display().warning(
                f"ansible-runner takes what {path} says into this run; it was written at {written}: remove it unless "
                "it is meant for this run (suppress_env_files=True, or --omit-env-files, writes none)."
            )
