"""The settings of all nodes in the play, as the inventory and the command line give them, checked at once."""

from __future__ import annotations

from typing import Any

from node_action import NodeFailure

from benchmark.errors import InputError
from benchmark.settings import ResolvedSettings, resolve_nodes

PREFIXES = ("benchmark_", "python_env_", "hf_cache_")
# A secret is no setting: it is in no result and in no run.json.
SECRET = "hf_cache_token"  # noqa: S105 # the name of a variable, not its value
# What the playbooks themselves set.
OWN = ("benchmark_run", "benchmark_failure", "benchmark_fetched")


def resolve_play(task_vars: dict[str, Any]) -> dict[str, ResolvedSettings]:
    """Return the resolved settings of every node of the play. Raises NodeFailure with everything that is wrong.

    Only what a user set is read; the rest comes from `benchmark.settings`, whose defaults are the roles' own.
    """
    try:
        return resolve_nodes({node: _given(node, task_vars["hostvars"]) for node in nodes(task_vars)})
    except InputError as error:
        raise NodeFailure(str(error)) from error


def nodes(task_vars: dict[str, Any]) -> list[str]:
    """Return the names of the play's nodes, those that have failed included."""
    return [str(node) for node in task_vars["ansible_play_hosts_all"]]


def _given(node: str, hostvars: Any) -> dict[str, Any]:
    known = hostvars[node]
    return {
        str(name): known[name] for name in known if name.startswith(PREFIXES) and name != SECRET and name not in OWN
    }
