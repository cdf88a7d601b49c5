"""Action `vllm`: the virtual environment that `vllm serve` runs in, apart from the benchmark's own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from environment_action import EnvironmentAction


class ActionModule(EnvironmentAction):
    """vLLM pins its own torch, so it shares nothing with the environment of the run."""

    settings = "vllm"
