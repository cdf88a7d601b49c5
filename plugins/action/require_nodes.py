"""Action `require_nodes`: check, once on the controller, that the play has nodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context
from node_action import NodeAction, NodeFailure

from benchmark.cluster.inventory import GROUP, no_node


class ActionModule(NodeAction):
    """Raises NodeFailure if the inventory's group is empty, or --limit leaves none of its nodes."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Change nothing."""
        groups = {str(name): list(hosts) for name, hosts in self.task_vars["groups"].items()}
        if not groups.get(GROUP):
            raise NodeFailure(no_node(groups, context.CLIARGS.get("inventory") or ()))
        limit = self.task_vars.get("ansible_limit")
        if limit and not {*groups[GROUP]} & {*map(str, self.task_vars["ansible_play_hosts_all"])}:
            raise NodeFailure(f"--limit {limit} leaves no node of the group {GROUP}.")
        return {"changed": False}
