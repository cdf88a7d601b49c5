from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fleet.by_hand import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)
