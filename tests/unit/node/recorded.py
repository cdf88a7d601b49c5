"""NVML with recorded values, for tests on machines without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.integration.ssh_nodes import CHECKOUT

# A directory for PYTHONPATH, so that other processes find it too.
DIRECTORY = CHECKOUT / "tests" / "data" / "nvml"


def recorded_nvml() -> ModuleType:
    """Return a new copy of the module, for a test to change."""
    spec = importlib.util.spec_from_file_location("pynvml", DIRECTORY / "pynvml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get("pynvml")
    sys.modules["pynvml"] = module  # where its data classes look themselves up
    try:
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules["pynvml"]
        else:
            sys.modules["pynvml"] = before
    return module
