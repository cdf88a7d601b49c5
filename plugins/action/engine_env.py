"""Action `engine_env`: the virtual environment of an engine's server, separate from the benchmark's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from environment_action import EnvironmentAction


class ActionModule(EnvironmentAction):
    """Argument: `engine`, one of `benchmark/provisioned/`. It pins its own torch, so it has its own environment."""

    def act(self) -> dict[str, Any]:
        """Install the engine and its dependencies."""
        self.settings = str(self._task.args["engine"])
        return super().act()
