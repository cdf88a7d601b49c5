"""Nodes on this machine, each a directory and a shell, are measured together."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.fleet import measure, session
from benchmark.fleet.errors import ControllerGone
from tests.unit.fleet.by_hand import MEASURES, READY, Fleet, failure, progress, run


def test_all_that_are_ready_begin_together(fleet: Fleet) -> None:
    for name in ("jw2", "jw3"):
        fleet.add(name)
    fleet.add("ends", "echo no model >&2; exit 4")
    fleet.add("late", "exec sleep 600", benchmark_sync_timeout_s=1)
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3"]
    for name in outcome.fetched:
        assert (fleet.nodes[name].place / "samples.jsonl").read_text() == "measured\n"
        assert not fleet.there(name).exists()
        ready = json.loads((fleet.nodes[name].place / "ready.json").read_text())
        assert abs(ready["offset_ns"]) <= ready["uncertainty_ns"], "one machine, one clock"
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3"]
    assert set(outcome.failures) == {"ends", "late"}
    assert failure(fleet, "ends") == "no model"
    assert failure(fleet, "late") == (
        "Not ready to measure within benchmark_sync_timeout_s = 1 s: it was still starting. It was stopped; the others "
        "went on."
    )
    assert not fleet.there("late").exists()


def test_a_node_that_is_not_there_costs_the_others_nothing(fleet: Fleet) -> None:
    fleet.add("jw2")
    fleet.add("gone", call=lambda line: ["sh", "-c", "echo Connection refused >&2; exit 255"])
    fleet.add("shell", call=lambda line: ["sh", "-c", "echo This account is currently not available.; exit 1"])
    fleet.add("env", python_env_dir="/nowhere")
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"]
    assert failure(fleet, "gone").startswith("Not reachable: Nothing answers SSH at gone")
    assert "runs no command: it ends with exit code 1, and prints 'This account is" in failure(fleet, "shell")
    assert "there is no /nowhere/bin/python: run playbooks/provision.yml" in failure(fleet, "env")


@pytest.mark.parametrize(("other", "starts"), [("20240101T000000Z-a", 2), ("20990101T000000Z-a", 1)])
def test_who_came_later_gives_way_and_both_measure(other: str, starts: int, fleet: Fleet) -> None:
    log = fleet.directory / "starts"
    fleet.add("jw2", f"echo started >> {log}; {MEASURES}")
    # The other run on jw3 ends once it has jw2, or of itself.
    state = f"waiting: run {other} of bob on there has been measuring here since 12:00 UTC"
    waits = f"""echo '{progress(state)}' > progress.json
    looks=0
    while [ -d {fleet.there("jw2")} ] && [ $looks -lt 40 ]; do sleep 0.1; looks=$((looks + 1)); done"""
    # It says nothing more before it is ready.
    fleet.add("jw3", f"{waits}; {MEASURES}")
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3"], outcome.failures
    assert log.read_text().split() == ["started"] * starts
    gave_way = ("jw2", "gives way to an older run that another node is waiting for")
    assert fleet.messages.count(gave_way) == starts - 1
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3"]


def test_a_node_that_waits_for_nobody_does_not_wait(fleet: Fleet) -> None:
    fleet.add("jw2", "echo measured > samples.jsonl", order={"wait_s": None})
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert not (fleet.run_dir / "start.json").exists()


def test_waiting_for_others_takes_nothing_of_a_time_limit(fleet: Fleet) -> None:
    """A node that is ready at once waits longer than it may measure, and then measures nearly as long."""
    limits: dict[str, Any] = {"benchmark_timeout_s": 3, "order": {"limit_s": 60}}
    fleet.add("jw2", f"{MEASURES}; sleep 1", **limits)
    fleet.add("slow", f"sleep 4; {MEASURES}", **limits)
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "slow"], outcome.failures


def test_who_hangs_after_the_start_is_stopped(fleet: Fleet) -> None:
    limits: dict[str, Any] = {"benchmark_timeout_s": 3, "order": {"limit_s": 60}}
    fleet.add("hangs", f"{MEASURES}; exec sleep 600", **limits)
    fleet.add("jw2", **limits)
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert failure(fleet, "hangs") == "The benchmark hung: it was stopped after benchmark_timeout_s = 3 s."
    assert (fleet.nodes["hangs"].place / "samples.jsonl").read_text() == "measured\n"
    assert not fleet.there("hangs").exists()


def test_what_an_earlier_attempt_left_hanging_is_stopped(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started together with others, and its limit on the node has room for what it would wait for them."""
    monkeypatch.setattr(measure, "GRACE_S", 1)
    fleet.add("jw2", order={"attempt": 2, "wait_s": None}, benchmark_timeout_s=1, benchmark_busy="fail")
    there = fleet.there("jw2")
    there.mkdir(parents=True)
    (there / "owner").write_text("ours\nalice on here\n")
    (there / "order.json").write_text('{\n  "attempt": 1,\n  "wait_s": 60\n}\n')
    for name, words in (("go", "1"), ("samples.jsonl", "measured"), ("benchmark.log", "")):
        (there / name).write_text(f"{words}\n")
    hangs = "echo $$ > pid; echo $$ > limit; exec sleep 600"
    with subprocess.Popen(["sh", "-c", hangs], cwd=there, start_new_session=True) as hanging:
        outcome = fleet.measure()
        assert hanging.wait(60) == -signal.SIGTERM
    assert outcome.failures["jw2"] == "The benchmark hung: it was stopped after 2 s."
    assert (fleet.nodes["jw2"].place / "samples.jsonl").read_text() == "measured\n"


def test_an_interruption_stops_the_nodes_and_fetches(fleet: Fleet) -> None:
    fleet.add("jw2", f"{READY}; until [ -f go ]; do sleep 0.02; done; echo one > samples.jsonl; exec sleep 600")
    fleet.add("jw3", READY + "; until [ -f go ]; do sleep 0.02; done; echo two > samples.jsonl")

    async def interrupted() -> measure.Outcome:
        measurement = fleet.measurement()
        running = asyncio.ensure_future(measurement.run())
        while not (fleet.there("jw2") / "samples.jsonl").exists() or "jw3" not in measurement.outcome.fetched:
            await asyncio.sleep(0.02)
        measurement.interrupt()
        return await running

    outcome = run(interrupted())
    assert (outcome.fetched, outcome.interrupted) == (["jw3"], True)
    assert failure(fleet, "jw2") == "Interrupted: it was stopped, and what it had measured was fetched."
    assert (fleet.nodes["jw2"].place / "samples.jsonl").read_text() == "one\n"
    assert not fleet.there("jw2").exists()


def test_where_the_controller_is_gone_nodes_are_left_as_they_are(fleet: Fleet) -> None:
    fleet.add("jw2", f"{READY}; exec sleep 600", benchmark_timeout_s=5)

    async def gone() -> None:
        while not (fleet.there("jw2") / "ready").exists():
            await asyncio.sleep(0.02)

    with pytest.raises(ControllerGone):
        run(fleet.measurement().run(gone))
    assert fleet.there("jw2").exists()
    assert not (fleet.nodes["jw2"].place / "failure.json").exists()


def test_what_a_node_sends_without_end_is_not_taken(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_AT_ONCE", 50_000)
    fleet.add("jw2", call=lambda line: ["sh", "-c", f"exec yes {'x' * 4000}"])
    fleet.add("jw3")
    outcome = fleet.measure()
    assert outcome.fetched == ["jw3"]
    assert outcome.failures["jw2"].startswith("The node sends too much")


def test_it_takes_no_longer_than_the_slowest(fleet: Fleet, tmp_path: Path) -> None:
    began = time.monotonic()
    fleet.add("jw2", f"sleep 1; {MEASURES}")
    fleet.add("jw3")
    assert sorted(fleet.measure().fetched) == ["jw2", "jw3"]
    assert time.monotonic() - began > 1
