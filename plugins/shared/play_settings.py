"""The settings of all nodes in the play, as the inventory and the command line give them, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.utils.vars import load_extra_vars
from node_action import CHECKOUT, NodeFailure

from benchmark.cluster.names import some
from benchmark.cluster.resume import find_run, require_ended, settings_to_resume
from benchmark.errors import InputError
from benchmark.provisioned import PROVISIONING_ROLES
from benchmark.records import RunRecord
from benchmark.resolve import resolve_nodes
from benchmark.rundir import read_run
from benchmark.secret_settings import NAMES, Secrets, check_secrets
from benchmark.settings import ResolvedSettings, Settings

PREFIXES = ("benchmark_", *(f"{role}_" for role in PROVISIONING_ROLES))
# Secrets are no settings: they are in no result and in no run.json.
SECRETS = ("hf_cache_token", *NAMES)
# Which run is resumed; no setting of that run.
RESUME = "benchmark_resume"
# What the playbooks themselves set.
OWN = ("benchmark_run", "benchmark_failure", "benchmark_measured", *(f"{role}_made" for role in PROVISIONING_ROLES))


@dataclass(frozen=True)
class Play:
    """What the nodes of the play are asked; `run` and `run_dir` where they resume a run."""

    resolved: dict[str, ResolvedSettings]
    given: dict[str, dict[str, Any]]
    hosts: dict[str, str]
    """Where Ansible looks for each."""
    on_command_line: tuple[str, ...]
    run_dir: Path | None = None
    run: RunRecord | None = None


def resolve_play(task_vars: Mapping[str, Any], loader: Any) -> Play:
    """Return the resolved settings of every node of the play. Raises NodeFailure with everything that is wrong.

    Only what a user set is read; the rest comes from `benchmark.settings`, whose defaults are the roles' own, or from
    the run that is resumed.
    """
    known = {node: task_vars["hostvars"][node] for node in nodes(task_vars)}
    given = {node: _given(variables) for node, variables in known.items()}
    hosts = {node: str(variables.get("ansible_host", node)) for node, variables in known.items()}
    from_line = tuple(name for name in load_extra_vars(loader) if name in Settings.model_fields)
    problems = _secret_problems(known)
    wanted = {str(variables.get(RESUME) or "") for variables in known.values()}
    try:
        if len(wanted) > 1:
            raise InputError(f"{RESUME} belongs to the whole run and differs between nodes: give it with -e.")
        if not (name := wanted.pop() if wanted else ""):
            resolved = resolve_nodes(given)
            if problems:
                raise InputError("\n".join(problems))
            return Play(resolved, given, hosts, from_line)
        run_dir = find_run(_results(given), name)
        run = read_run(run_dir)
        require_ended(run)
        if problems:
            raise InputError("\n".join(problems))
        return Play(settings_to_resume(run, given, from_line), given, hosts, from_line, run_dir, run)
    except InputError as error:
        raise NodeFailure("\n".join(dict.fromkeys([*str(error).splitlines(), *problems]))) from error


def secrets_of(variables: Mapping[str, Any]) -> Secrets:
    """Return what a node's run is given beside its order; `variables`: its hostvars. Raises InputError."""
    return check_secrets({name: variables[name] for name in NAMES if name in variables})


def _secret_problems(known: Mapping[str, Any]) -> list[str]:
    nodes_by_problem: dict[str, list[str]] = {}
    for node, variables in known.items():
        try:
            secrets_of(variables)
        except InputError as error:
            for problem in str(error).splitlines():
                nodes_by_problem.setdefault(problem, []).append(node)
    return [f"{problem} [{some(names)}]" for problem, names in nodes_by_problem.items()]


def nodes(task_vars: Mapping[str, Any]) -> list[str]:
    """Return the names of the play's nodes, those that have failed included."""
    return [str(node) for node in task_vars["ansible_play_hosts_all"]]


def _given(known: Any) -> dict[str, Any]:
    left_out = (*SECRETS, RESUME, *OWN)
    return {str(name): known[name] for name in known if name.startswith(PREFIXES) and name not in left_out}


def _results(given: dict[str, dict[str, Any]]) -> Path:
    """Return where runs are kept; a relative directory is one in the checkout."""
    default = Settings.model_fields["benchmark_results_dir"].default
    each = {str(one.get("benchmark_results_dir", default)) for one in given.values()}
    if len(each) > 1:
        raise InputError("benchmark_results_dir belongs to the whole run and differs between nodes.")
    return CHECKOUT / Path(each.pop()).expanduser()
