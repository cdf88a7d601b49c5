"""Where torch can compile nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.errors import SetupError
from benchmark.node.continuous import compiling
from tests.unit.node.continuous.asked import Make


def test_compiling_is_refused_where_nothing_can_be_compiled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: Any, **how: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch, "compile", fail)
    compiling.missing.cache_clear()
    with pytest.raises(SetupError, match=r"torch cannot compile here \(RuntimeError: Failed to find C compiler"):
        make(compile_level=1)
    assert not make()[1].details["fused"]
    compiling.missing.cache_clear()
