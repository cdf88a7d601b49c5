from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.plugins.by_hand import Heard, Node

# What they make is imported here: it brings ansible-core, after which torch cannot be imported any more.


@pytest.fixture
def heard() -> Heard:
    from tests.unit.plugins.by_hand import Heard

    return Heard()


@pytest.fixture
def nodes(tmp_path: Path) -> list[Node]:
    from tests.unit.plugins.by_hand import Node

    return [Node(tmp_path, name) for name in ("jw2", "jw3", "jw4")]
