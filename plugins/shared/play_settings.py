"""The settings of all nodes in the play, as the inventory and the command line give them, checked at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.vars import load_extra_vars
from node_action import CHECKOUT, NodeFailure

from benchmark.cluster.groups import group_problems
from benchmark.cluster.inventory import GROUP, PROMETHEUS_DIR, RESULTS_DIR, directory_in, results_in
from benchmark.cluster.names import some
from benchmark.cluster.notify import receiver_of
from benchmark.cluster.one_system import CLUSTER, system_problems
from benchmark.cluster.resume import left_out, require_ended, settings_to_resume
from benchmark.cluster.stored.find import find_run, run_at
from benchmark.errors import InputError
from benchmark.provisioned import PROVISIONING_ROLES
from benchmark.records import RunRecord
from benchmark.resolve import resolve_nodes
from benchmark.rundir import read_run
from benchmark.secret_settings import API_KEY, LEAST_MASKED, NAMES, Secrets, check_secrets
from benchmark.settings import ResolvedSettings, Settings
from benchmark.variables import NOTIFY, NOTIFY_HEADERS, RESUME, SECRETS

PYTHONPATH = "PYTHONPATH"
PREFIXES = ("benchmark_", "preflight_", *(f"{role}_" for role in PROVISIONING_ROLES))
# What the playbooks themselves set.
OWN = (
    *("benchmark_run", "benchmark_failure", "benchmark_failed", "benchmark_measured"),
    *("preflight_settings", "preflight_probe", "preflight_lacking", "preflight_node"),
    *(f"{role}_made" for role in PROVISIONING_ROLES),
)


@dataclass(frozen=True)
class Play:
    """What the nodes of the play are asked; `run` and `run_dir` where they resume a run."""

    resolved: dict[str, ResolvedSettings]
    given: dict[str, dict[str, Any]]
    hosts: dict[str, str]
    """Where Ansible looks for each."""
    on_command_line: tuple[str, ...]
    groups_outside: Mapping[str, object] = field(default_factory=dict)
    """The benchmark_group of each node that --limit leaves out."""
    measurable: bool = True
    """Whether these nodes can be measured, and not only looked at: a system and a group are measured whole."""
    run_dir: Path | None = None
    run: RunRecord | None = None
    left_out: tuple[str, ...] = ()
    """Nodes of the play that the run is resumed without; they are in none of the above."""


def resolve_play(task_vars: Mapping[str, Any], loader: Any, measures: bool = True) -> Play:
    """Return the resolved settings of every node of the play. Raises NodeFailure with everything that is wrong.

    Only what a user set is read; the rest comes from `benchmark.settings`, whose defaults are the roles' own, or from
    the run that is resumed.

    Nodes that are one system, or one copy of a model, are held against each other where they are to be measured, and
    elsewhere unless --limit leaves some out: one that is to be mended is looked at alone.
    """
    known = {node: task_vars["hostvars"][node] for node in nodes(task_vars)}
    given = {node: _given(variables) for node, variables in known.items()}
    hosts = {node: str(variables.get("ansible_host", node)) for node, variables in known.items()}
    from_line = tuple(name for name in load_extra_vars(loader) if name in Settings.model_fields)
    problems = [*_secret_problems(known), *_notify_problems(known)]
    wanted = {str(variables.get(RESUME) or "") for variables in known.values()}
    try:
        if len(wanted) > 1:
            raise InputError(f"{RESUME} belongs to the whole run and differs between nodes: give it with -e.")
        if not (name := wanted.pop() if wanted else ""):
            resolved = resolve_nodes(given)
            outside = _groups_left_out(task_vars, resolved, from_line)
            problems += [*_path_problems(known, resolved), *_key_problems(known)]
            together = [*system_problems(resolved, hosts), *group_problems(resolved, hosts, outside)]
            if measures or not task_vars.get("ansible_limit"):
                problems += together
            if problems:
                raise InputError("\n".join(problems))
            return Play(resolved, given, hosts, from_line, outside, not together)
        run_dir = _to_resume(task_vars, name)
        run = read_run(run_dir)
        require_ended(run)
        if problems:
            raise InputError("\n".join(problems))
        out = left_out(run, given, named=bool(task_vars.get("ansible_limit")))
        given = {node: variables for node, variables in given.items() if node not in out}
        if not given:
            raise InputError(
                f"{RESUME}: the run {run.run_id} was opened with --limit, and none of its nodes is in the inventory: "
                "name those that are to be added with --limit."
            )
        return Play(settings_to_resume(run, given, from_line), given, hosts, from_line, {}, True, run_dir, run, out)
    except InputError as error:
        raise NodeFailure("\n".join(dict.fromkeys([*str(error).splitlines(), *problems]))) from error


def secrets_of(variables: Mapping[str, Any]) -> Secrets:
    """Return what a node's run is given beside its order; `variables`: its hostvars. Raises InputError."""
    return check_secrets({name: variables[name] for name in NAMES if name in variables})


def secret_values(variables: Mapping[str, Any]) -> list[str]:
    """Return the secret values in a node's hostvars, without those that are too short to be looked for."""
    token = ""
    with suppress(AnsibleError):  # whoever needs it says what is wrong with it
        token = str(variables.get("hf_cache_token") or "")
    return [*secrets_of(variables).values, *([token] if len(token) >= LEAST_MASKED else [])]


def _secret_problems(known: Mapping[str, Any]) -> list[str]:
    nodes_by_problem: dict[str, list[str]] = {}
    for node, variables in known.items():
        try:
            secrets_of(variables)
        except InputError as error:
            for problem in str(error).splitlines():
                nodes_by_problem.setdefault(problem, []).append(node)
    return [f"{problem} [{some(names)}]" for problem, names in nodes_by_problem.items()]


def _path_problems(known: Mapping[str, Any], resolved: Mapping[str, ResolvedSettings]) -> list[str]:
    """Return where PYTHONPATH would hide the benchmark's own code from the Python of an environment that exists."""
    found = [
        node
        for node, one in resolved.items()
        if not one.settings.python_env_manage and PYTHONPATH in secrets_of(known[node]).environment
    ]
    if not found:
        return []
    return [
        f"{PYTHONPATH} in benchmark_environment would hide the benchmark's own code, since python_env_manage is false: "
        f"set it in the node's login files, or in a bin/python3 of your own that sets it. [{some(found)}]"
    ]


def _key_problems(known: Mapping[str, Any]) -> list[str]:
    """Return that the servers of one system have different keys, where one driver asks them all."""
    keys = {secrets_of(one).api_key for one in known.values() if one.get("benchmark_system") == CLUSTER}
    return [f"{API_KEY} differs between the nodes of the system: give it once."] if len(keys) > 1 else []


def _groups_left_out(
    task_vars: Mapping[str, Any], resolved: Mapping[str, ResolvedSettings], from_line: Collection[str]
) -> dict[str, Any]:
    """Return the benchmark_group of each node that --limit leaves out; nothing where -e gives all of them one."""
    setting = "benchmark_group"
    if setting in from_line or not any(one.settings.benchmark_group for one in resolved.values()):
        return {}
    others = [node for node in task_vars["groups"].get(GROUP, ()) if node not in resolved]
    return {str(node): task_vars["hostvars"][node].get(setting) for node in others}


def _notify_problems(known: Mapping[str, Any]) -> list[str]:
    each = [{name: one[name] for name in (NOTIFY, NOTIFY_HEADERS) if name in one} for one in known.values()]
    if any(one != each[0] for one in each):
        return [f"{NOTIFY} belongs to the whole run and differs between nodes: give it to the group, or with -e."]
    try:
        receiver_of(each[0] if each else {}, CHECKOUT)
    except InputError as error:
        return str(error).splitlines()
    return []


def nodes(task_vars: Mapping[str, Any]) -> list[str]:
    """Return the names of the play's nodes, those that have failed included."""
    return [str(node) for node in task_vars["ansible_play_hosts_all"]]


def _given(known: Any) -> dict[str, Any]:
    # Secrets are in no result and in no run.json; which run is resumed is no setting of that run.
    left_out = (*SECRETS, RESUME, *OWN)
    return {str(name): known[name] for name in known if name.startswith(PREFIXES) and name not in left_out}


def results_of(task_vars: Mapping[str, Any]) -> Path:
    """Return where the inventory, or -e, has runs kept. Raises InputError."""
    return results_in(_values(task_vars, RESULTS_DIR))


def prometheus_dir_of(task_vars: Mapping[str, Any]) -> Path | None:
    """Return where the node exporter's textfile collector looks; None: nowhere. Raises InputError."""
    return directory_in(PROMETHEUS_DIR, _values(task_vars, PROMETHEUS_DIR))


def _values(task_vars: Mapping[str, Any], name: str) -> list[object]:
    """Return a setting's value for each of the play's nodes that has one; for all nodes where the play has none."""
    known = task_vars["groups"].get(GROUP, ())
    each = [task_vars["hostvars"][node] for node in [n for n in known if n in nodes(task_vars)] or known]
    each = each or [task_vars]  # without nodes, what -e says
    return [variables[name] for variables in each if name in variables]


def named_run(task_vars: Mapping[str, Any], name: str) -> Path:
    """Return the directory of the run that a playbook is given: a relative path may lie in the checkout.

    Raises InputError.
    """
    return run_at(name) or (run_at(str(CHECKOUT / name)) if name else None) or find_run(results_of(task_vars), name)


def _to_resume(task_vars: Mapping[str, Any], name: str) -> Path:
    try:
        return named_run(task_vars, name)
    except InputError as error:
        raise InputError(f"{RESUME}: {error}") from None
