from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.fleet import giving_way, remote_run
from tests.unit.fleet.by_hand import Fleet


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A run that waits for nothing for long."""
    monkeypatch.setattr(remote_run, "RETRY_S", 0)
    monkeypatch.setattr(giving_way, "PATIENCE_S", 0.1)
    return Fleet(tmp_path)
