"""A fault of this program's own."""

from __future__ import annotations

import pytest

from benchmark.fleet import remote_run
from tests.unit.fleet.by_hand import Fleet


@pytest.mark.parametrize("error", [ValueError("oh"), OSError(24, "Too many open files")])
def test_a_fault_of_our_own_costs_no_other_node_its_result(
    error: Exception, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.add("jw2", order={"attempt": 2})
    fleet.add("jw3")

    async def broken(self: remote_run.RemoteRun) -> bool:
        raise error

    monkeypatch.setattr(remote_run.RemoteRun, "adopt", broken)
    outcome = fleet.measure()
    path = fleet.nodes["jw2"].place / "controller_traceback.txt"
    assert (outcome.fetched, outcome.failures) == (
        ["jw3"],
        {"jw2": f"{type(error).__name__}: {error}; traceback: {path}."},
    )
    assert "in broken" in path.read_text()


def test_a_fault_of_our_own_leaves_nothing_running(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.add("jw2")

    async def broken(self: remote_run.RemoteRun, trips: int = 0) -> None:
        raise KeyError("jw3")

    monkeypatch.setattr(remote_run.RemoteRun, "read_clock", broken)
    outcome = fleet.measure()
    assert outcome.failures["jw2"].startswith("KeyError: 'jw3'; traceback: ")
    assert outcome.failures["jw2"].endswith(" It was stopped; the others went on.")
    assert not fleet.there("jw2").exists()
