"""Nodes that are ready, their clocks and turns, and the start that they agree on."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.fleet import remote_run, rendezvous, starts
from benchmark.fleet.rendezvous import clock_offset
from benchmark.records import AgreedStart
from tests.unit.building import HOST
from tests.unit.fleet.by_hand import FACTS, MEASURES, READY, Fleet, failure


def test_clocks_are_read_of_a_few_nodes_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "CLOCKS_AT_ONCE", 1)
    spans: list[tuple[int, int]] = []

    def offset(trips: list[tuple[int, int, int]]) -> tuple[int, int]:
        spans.append((trips[0][0], trips[-1][2]))
        assert len(trips) == remote_run.TRIPS
        return clock_offset(trips)

    monkeypatch.setattr(starts, "clock_offset", offset)
    for name in ("jw2", "jw3", "jw4"):
        fleet.add(name, f"sleep 0.{name[2]}; date +%s%N > ../../../../is_ready.{name}; {MEASURES}")
    outcome = fleet.measure()
    assert len(outcome.fetched) == 3, outcome.failures
    last_ready = max(int(path.read_text()) for path in fleet.directory.glob("is_ready.*"))
    spans.sort()
    assert spans[0][0] >= last_ready
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), "one after the other"


@pytest.mark.parametrize("date", ["echo %N", "echo", "echo -5", "echo 1e9", "echo 99999999999999999999999"])
def test_a_clock_that_cannot_be_read_excludes_the_node(date: str, fleet: Fleet) -> None:
    programs = fleet.directory / "programs"
    programs.mkdir()
    (programs / "date").write_text(f"#!/bin/sh\n{date}\n")
    (programs / "date").chmod(0o755)
    fleet.add("jw2", call=lambda line: ["env", f"PATH={programs}:/usr/bin:/bin", "/bin/sh", "-c", line])
    assert "clock could not be read" in fleet.measure().failures["jw2"]


def test_nodes_measure_alone_one_after_the_other(fleet: Fleet) -> None:
    alone = "until [ -f turn ]; do sleep 0.02; done; date +%s%N > begins; sleep 0.3; date +%s%N > ends; : > turn_over"
    together = "until [ -f go ]; do sleep 0.02; done; cp begins ends ../.."
    for name in ("jw2", "jw3"):
        fleet.add(name, f"{READY}; {alone}; {together}", order={"solo": True, "limit_s": 60})
    fleet.add("hangs", f"{READY}; exec sleep 600", order={"solo": True, "limit_s": 60}, benchmark_timeout_s=2)
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3"], outcome.failures
    assert "Measuring alone did not end within benchmark_timeout_s = 2 s" in outcome.failures["hangs"]
    spans = sorted(
        (
            int((fleet.directory / f"work/{name}/begins").read_text()),
            int((fleet.directory / f"work/{name}/ends").read_text()),
        )
        for name in ("jw2", "jw3")
    )
    assert spans[0][1] <= spans[1][0]
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3"]


@pytest.mark.parametrize(
    ("program", "when"),
    [("mv", '[ "$2" = turn ]'), ("sleep", '[ "$1" = 0.2 ] && [ -e turn ]')],
    ids=["before the answer", "while it measures"],
)
def test_a_turn_is_asked_for_again_after_a_reconnect(program: str, when: str, fleet: Fleet) -> None:
    """The word that gives the turn may have come or not when the connection is lost: it is sent again."""
    # The programs of converse.sh with which it gives the turn, and then waits for its end.
    programs = fleet.directory / "programs"
    programs.mkdir()
    (programs / program).write_text(
        f'#!/bin/sh\nif {when} && [ ! -e "$0.lost" ]; then : > "$0.lost"; kill -9 "$(cat session)"; exit; fi\n'
        f'exec /usr/bin/{program} "$@"\n'
    )
    (programs / program).chmod(0o755)
    alone = "until [ -f turn ]; do sleep 0.02; done; sleep 1; echo alone > solo_samples.jsonl; : > turn_over"
    fleet.add(
        "jw2",
        f"{READY}; {alone}; until [ -f go ]; do sleep 0.02; done; echo measured > samples.jsonl",
        call=lambda line: ["env", f"PATH={programs}:/usr/bin:/bin", "/bin/sh", "-c", line],
        order={"solo": True, "limit_s": 60},
    )
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert (fleet.nodes["jw2"].place / "solo_samples.jsonl").read_text() == "alone\n"
    assert fleet.messages == [("jw2", "SSH connection lost, reconnecting; the run goes on")]
    assert len(fleet.calls) == 2


def test_who_is_not_alike_is_known_before_the_first_turn(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "CLOCKS_AT_ONCE", 1)
    other = HOST.model_copy(update={"python": "3.12.0"}).model_dump_json()
    alone = "until [ -f turn ]; do sleep 0.02; done; echo alone > solo_samples.jsonl; : > turn_over"
    together = "until [ -f go ]; do sleep 0.02; done; echo measured > samples.jsonl"
    order = {"solo": True, "limit_s": 60}
    for name in ("jw2", "jw3", "jw4"):
        ready = READY.replace(FACTS, other) if name == "jw4" else READY
        fleet.add(name, f"{ready}; {alone}; {together}", order=order, benchmark_drift="fail")
    assert fleet.measure().fetched == []
    for name, node in fleet.nodes.items():
        assert "differ in python: 3.11.2 (jw2, jw3), 3.12.0 (jw4)" in failure(fleet, name)
        assert not (node.place / "solo_samples.jsonl").exists()


def test_the_start_waits_for_the_last_node(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its turn, and for its answer when it is tried out how long speaking to all takes."""
    slow_s = 0.3
    programs = fleet.directory / "programs"
    programs.mkdir()
    (programs / "date").write_text(f'#!/bin/sh\nsleep {slow_s}\nexec /usr/bin/date "$@"\n')
    (programs / "date").chmod(0o755)
    trials: list[tuple[int, float]] = []

    def agree(run_dir: Path, ready: list[str], telling_s: float, **more: Any) -> AgreedStart:
        trials.append((time.time_ns() - int(telling_s * 1e9), telling_s))
        return rendezvous.agree(run_dir, ready, telling_s, **more)

    monkeypatch.setattr(starts, "agree", agree)
    alone = "until [ -f turn ]; do sleep 0.02; done; sleep 0.3; /usr/bin/date +%s%N > solo_samples.jsonl; : > turn_over"
    together = "until [ -f go ]; do sleep 0.02; done; echo measured > samples.jsonl"
    for name, path in (("jw2", ""), ("jw3", ""), ("slow", f"{programs}:")):
        fleet.add(
            name,
            f"{READY}; {alone}; {together}",
            call=lambda line, path=path: ["env", f"PATH={path}/usr/bin:/bin", "/bin/sh", "-c", line],  # type: ignore[misc]
            order={"solo": True, "limit_s": 60},
        )
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3", "slow"], outcome.failures
    ((began_ns, telling_s),) = trials
    assert began_ns >= max(int((node.place / "solo_samples.jsonl").read_text()) for node in fleet.nodes.values())
    assert telling_s >= slow_s
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3", "slow"]


STEPS = """echo '{facts}' > ready.tmp; mv ready.tmp ready
flock -u 8 2>/dev/null
until [ -f go ]; do sleep 0.02; done
for step in 2 3; do
  [ "$step" = {dies} ] && kill -9 $$
  [ "$step" = {over} ] && echo over > ready.tmp || echo '{facts}' > ready.tmp
  mv ready.tmp repeat${{step}}_ready
  [ "$step" = {over} ] && break
  until [ -f repeat${{step}}_go ]; do sleep 0.02; done
done
{last}
echo measured > samples.jsonl"""


def test_who_needs_no_further_start_is_waited_for_by_none(fleet: Fleet) -> None:
    seen = fleet.directory / "seen"

    def steps(dies: int = 0, over: int = 0, last: str = ":") -> str:
        return STEPS.format(facts=FACTS, dies=dies, over=over, last=last)

    three = {"measurements": 3}
    # It takes part in no third step, and ends only once the others have had theirs.
    fleet.add("over", steps(over=3, last=f"until [ -f {seen} ]; do sleep 0.02; done"), order=three)
    fleet.add("jw2", steps(last=f"touch {seen}"), order=three)
    fleet.add("dies", steps(dies=3), order=three)
    # One that measures once is as one whose ladder ends at once.
    fleet.add("once", order={"measurements": 1})
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "once", "over"], outcome.failures
    assert list(outcome.failures) == ["dies"]
    starts = [json.loads((fleet.run_dir / f"{n}start.json").read_text())["nodes"] for n in ("", "repeat2_", "repeat3_")]
    assert starts == [["dies", "jw2", "once", "over"], ["dies", "jw2", "over"], ["jw2"]]
