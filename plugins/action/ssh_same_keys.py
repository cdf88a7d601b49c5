"""Action `ssh_same_keys`: warn of nodes with the same SSH host key, from the results of `ssh_host_keys`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.utils.display import Display
from node_action import NodeAction

from benchmark.cluster.host_keys import same_keys


class ActionModule(NodeAction):
    """Runs once for all nodes. Needs `seen`, the variable in which their results are registered; changes nothing."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Show the sentences as warnings, and return them."""
        hostvars, name = self.task_vars["hostvars"], str(self._task.args["seen"])
        prints = {
            str(node): hostvars[node].get(name, {}).get("fingerprints", ())
            for node in self.task_vars["ansible_play_hosts_all"]
        }
        found = same_keys(prints)
        for sentence in found:
            Display().warning(sentence)
        return {"changed": False, "same": found}
