"""The servers and the driver of a system on this machine: nothing is started for a system that cannot be measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.fleet.measure import Outcome
from benchmark.fleet.system import SystemMeasurement
from benchmark.records import DRIVER
from tests.unit.fleet.by_hand import Fleet, run

PLACES = [{"node": name, "host": "127.0.0.1", "port": 8000} for name in ("jw2", "jw3")]


def measure(fleet: Fleet, nodes: list[str], needed: int, where: str) -> Outcome:
    """Return what becomes of the system of jw2 and jw3 of which these nodes are left."""
    shared: dict[str, Any] = {"limit_s": 60}
    for place in PLACES:
        if place["node"] in nodes:
            fleet.add(str(place["node"]), "exit 4", order={**shared, "serves": place})
    fleet.add(DRIVER, "exit 4", order={**shared, "drives": PLACES})
    each = list(fleet.nodes.values())
    return run(SystemMeasurement(fleet.run_dir, each, fleet.reports, needed=needed, where=where).run())


@pytest.mark.parametrize(
    ("where", "needed", "reason"),
    [
        ("jw2", 1, "Nothing was measured: the driver's node, jw2, failed before."),
        (
            "the controller",
            2,
            "Nothing was measured: without jw2 too few serve, since benchmark_min_nodes asks for 2 of 2 nodes.",
        ),
    ],
)
def test_a_node_that_failed_before(where: str, needed: int, reason: str, fleet: Fleet) -> None:
    outcome = measure(fleet, ["jw3"], needed, where)
    assert outcome.failures == {"jw3": reason, DRIVER: reason}
    assert fleet.calls == [], "nobody was spoken with"
