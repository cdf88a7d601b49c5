"""Action `python_env`: the virtual environment with the pinned packages and the benchmark's own wheel."""

from __future__ import annotations

import sys
from functools import cache, cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from environment_action import EnvironmentAction
from node_action import CHECKOUT

from benchmark.cluster.packages.own_wheel import build_wheel

# One process may look at many nodes.
_wheel = cache(build_wheel)


class ActionModule(EnvironmentAction):
    """The environment that the run itself lives in."""

    settings = "python_env"

    @property
    def torch_index_url(self) -> str:
        """The package index of torch builds; empty: the node's usual one."""
        return str(self.setting("python_env_torch_index_url"))

    @cached_property
    def wheel(self) -> Path | None:
        """The benchmark's own wheel. Raises SetupError where it cannot be built."""
        return _wheel(CHECKOUT)
