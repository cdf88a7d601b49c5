"""Action `python_env`: the virtual environment with the pinned packages and the benchmark's own code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from environment_action import EnvironmentAction, own_wheel


class ActionModule(EnvironmentAction):
    """The environment that the run itself uses."""

    settings = "python_env"

    @property
    def wheel(self) -> Path | None:
        """The benchmark's own wheel."""
        return own_wheel()
