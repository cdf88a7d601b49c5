"""Settings from environment variables, for a run by hand."""

from __future__ import annotations

import os
from typing import Any


def from_environment() -> dict[str, Any]:
    """Return the settings in environment variables for a run by hand (SERVER_TARGET_QPS, HF_HOME)."""
    names = {"SERVER_TARGET_QPS": "benchmark_target_qps", "HF_HOME": "hf_cache_dir"}
    return {setting: os.environ[name] for name, setting in names.items() if os.environ.get(name)}
