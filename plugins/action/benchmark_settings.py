"""Action `benchmark_settings`: the controller's own checks, before any node is touched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import release
from node_action import NodeAction, NodeFailure
from play_settings import resolve_play

OLDEST, BELOW = (2, 19), (2, 22)


class ActionModule(NodeAction):
    """Raises NodeFailure with every problem: ansible-core's version, names, types and ranges, unknown profiles."""

    _requires_connection = False

    def act(self) -> dict[str, Any]:
        """Return the profile that each node will run."""
        version = tuple(int(part) for part in release.__version__.split(".")[:2])
        if not OLDEST <= version < BELOW:
            raise NodeFailure(
                f"ansible-core is {release.__version__}; {'.'.join(map(str, OLDEST))} or newer and below "
                f"{'.'.join(map(str, BELOW))} is needed: install requirements.txt."
            )
        resolved = resolve_play(self.task_vars)
        return {"changed": False, "profiles": sorted({r.profile.name for r in resolved.values()})}
