"""Nodes that are lost while the others wait for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.fleet import reach
from tests.unit.building import RUN_ID
from tests.unit.fleet.by_hand import FACTS, MEASURES, READY, Fleet, failure, run


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "GONE_S", 0.2)


def falls(dead: Path) -> str:
    """Return what a node does that is as one without power, in the shell: no session, and none comes again."""
    return f"until [ -s session ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session)"


def add_lost(fleet: Fleet, name: str, then: str = "exec sleep 600", before: str = ":", **more: object) -> Path:
    """Add a node that is lost while it loads; it is within reach again once the file is gone that this returns."""
    dead = fleet.directory / f"dead.{name}"
    fleet.add(
        name,
        f"{before}; {falls(dead)}; {then}",
        call=lambda line: ["sh", "-c", f"[ ! -e {dead} ] || exit 255; {line}"],
        **more,  # type: ignore[arg-type]
    )
    return dead


def stop(fleet: Fleet, *dead: Path) -> None:
    """End what still runs on nodes that were lost."""
    for path in dead:
        path.unlink(missing_ok=True)
        run(fleet.remote_run(fleet.nodes[path.name.removeprefix("dead.")]).stop())


def test_who_is_lost_while_it_loads_is_left_behind(fleet: Fleet) -> None:
    for name in ("jw2", "jw3"):
        fleet.add(name)
    dead = [add_lost(fleet, name) for name in ("lost1", "lost2")]
    outcome = fleet.measure()
    # The time to be ready is a minute: whoever waited for that would say another reason.
    assert sorted(outcome.fetched) == ["jw2", "jw3"]
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3"]
    for name in ("lost1", "lost2"):
        reason = failure(fleet, name)
        assert "the other nodes had been ready for 0.2 s: they went on without it" in reason
        assert "it ends by itself after at most 60 s, its time limit there" in reason
        assert reason.endswith(f"It has measured nothing: -e benchmark_resume={RUN_ID} measures it.")
        assert (name, "unreachable, excluded") in fleet.messages
    stop(fleet, *dead)


def test_who_comes_back_in_time_is_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "GONE_S", 30)
    fleet.add("jw2")
    back = fleet.directory / "dead.jw3"
    add_lost(fleet, "jw3", f"sleep 1; rm {back}; {MEASURES}")
    assert sorted(fleet.measure().fetched) == ["jw2", "jw3"], fleet.messages


def test_nobody_is_left_behind_while_another_loads(fleet: Fleet) -> None:
    """It costs nothing to wait for one that is lost as long as others are not ready either."""
    fleet.add("jw2")
    back = fleet.directory / "dead.jw3"
    fleet.add("slow", f"until [ -e {fleet.directory}/is_back ]; do sleep 0.02; done; {MEASURES}")
    add_lost(fleet, "jw3", f"sleep 3; rm {back}; {READY}; touch {fleet.directory}/is_back; {MEASURES}")
    assert sorted(fleet.measure().fetched) == ["jw2", "jw3", "slow"], fleet.messages


def test_one_that_nobody_waits_for_is_looked_for(fleet: Fleet) -> None:
    back = fleet.directory / "dead.jw3"
    add_lost(fleet, "jw3", f"sleep 2; rm {back}; {MEASURES}")
    fleet.add("fails", "echo no model >&2; exit 4")
    assert fleet.measure().fetched == ["jw3"], fleet.messages


def test_where_nobody_waits_nobody_is_left_behind(fleet: Fleet) -> None:
    """As without benchmark_sync_start."""
    back = fleet.directory / "dead.jw3"
    apart = {"wait_s": None}
    fleet.add("jw2", "echo measured > samples.jsonl", order=apart)
    add_lost(fleet, "jw3", f"sleep 2; rm {back}; echo measured > samples.jsonl", order=apart)
    assert sorted(fleet.measure().fetched) == ["jw2", "jw3"], fleet.messages


def test_who_is_lost_in_its_turn_is_left_behind(fleet: Fleet) -> None:
    order = {"solo": True, "limit_s": 60}
    alone = "until [ -f turn ]; do sleep 0.02; done; echo alone > solo_samples.jsonl; : > turn_over"
    dead = add_lost(fleet, "lost", before=f"{READY}; until [ -f turn ]; do sleep 0.02; done", order=order)
    for name in ("jw2", "jw3"):
        fleet.add(name, f"{READY}; {alone}; until [ -f go ]; do sleep 0.02; done", order=order)
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3"], outcome.failures
    assert "they went on without it" in failure(fleet, "lost")
    assert "-e benchmark_resume" in failure(fleet, "lost")
    stop(fleet, dead)


def test_who_gave_way_waits_for_no_node_that_is_lost(fleet: Fleet) -> None:
    """A node waits for an older run, for which the other one gave way, and is lost."""
    state = "waiting: run 20240101T000000Z-a of bob on there has been measuring here since 12:00 UTC"
    given_up = f"while [ -d {fleet.there('jw2')} ]; do sleep 0.1; done"
    waits = f'echo \'{{"state": "{state}"}}\' > progress.json; sleep 1; {given_up}'
    begun = f"until [ -d {fleet.there('lost')} ]; do sleep 0.02; done"
    fleet.add("jw2", f"{begun}; {MEASURES}")
    dead = add_lost(fleet, "lost", before=waits)
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert "they went on without it" in failure(fleet, "lost")
    stop(fleet, dead)


STEPS = f"""echo '{FACTS}' > ready.tmp; mv ready.tmp ready
flock -u 8 2>/dev/null
until [ -f go ]; do sleep 0.02; done
echo '{FACTS}' > ready.tmp
mv ready.tmp repeat2_ready
until [ -f repeat2_go ]; do sleep 0.02; done
echo measured > samples.jsonl"""


def test_who_is_out_of_reach_in_a_step_is_left_behind(fleet: Fleet) -> None:
    two = {"measurements": 2}
    fleet.add("jw2", STEPS, order=two)
    dead = add_lost(fleet, "dies", before=f"{READY}; until [ -f go ]; do sleep 0.02; done", order=two)
    outcome = fleet.measure()
    # The time limit is a minute: whoever waited for that would say another reason.
    assert outcome.fetched == ["jw2"]
    assert "they went on without it" in failure(fleet, "dies")
    assert failure(fleet, "dies").endswith("fetches them.")
    stop(fleet, dead)
