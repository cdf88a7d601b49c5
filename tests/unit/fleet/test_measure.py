"""Nodes on this machine, each a directory and a shell, are measured together."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.fleet import giving_way, measure, remote_run, rendezvous, session
from benchmark.fleet.barrier import Barrier
from benchmark.fleet.errors import ControllerGone, Ended, NodeError
from benchmark.fleet.rendezvous import clock_offset
from benchmark.records import AgreedStart
from tests.unit.building import HOST
from tests.unit.fleet.by_hand import FACTS, MEASURES, Fleet, noisy, progress, run

READY = f"echo '{FACTS}' > ready.tmp; mv ready.tmp ready; flock -u 8"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "RETRY_S", 0)
    monkeypatch.setattr(giving_way, "PATIENCE_S", 0.1)


def failure(fleet: Fleet, name: str) -> str:
    content: dict[str, str] = json.loads((fleet.nodes[name].place / "failure.json").read_text())
    assert (content["node"], content["stage"]) == (name, "benchmark")
    return content["reason"]


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
    state = f"waiting: run {other} of bob on there is measuring here since 12:00 UTC"
    waits = f"""echo '{progress(state)}' > progress.json
    looks=0
    while [ -d {fleet.there("jw2")} ] && [ $looks -lt 40 ]; do sleep 0.1; looks=$((looks + 1)); done"""
    # It says nothing more before it is ready.
    fleet.add("jw3", f"{waits}; {MEASURES}")
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["jw2", "jw3"], outcome.failures
    assert log.read_text().split() == ["started"] * starts
    gave_way = ("jw2", "gives way to an older run, for which another node waits")
    assert fleet.messages.count(gave_way) == starts - 1
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["jw2", "jw3"]


def test_another_controllers_run_is_left_alone(fleet: Fleet) -> None:
    node = fleet.add("jw2", order={"attempt": 2})
    theirs = fleet.there("jw2")
    theirs.mkdir(parents=True)
    (theirs / "owner").write_text("theirs\nbob on there\n")
    (theirs / "order.json").write_text('{"attempt": 1}\n')
    (theirs / "exit_code").write_text("0\n")
    (theirs / "samples.jsonl").write_text("measured\n")
    fleet.measure()
    left_alone = f"{theirs} on the node is a run of bob on there: it was left alone."
    assert failure(fleet, "jw2") == left_alone

    async def every_way() -> None:
        ours = fleet.remote_run(node)
        with pytest.raises(NodeError, match="is a run of bob on there: it was left alone"):
            await ours.start()
        assert not await ours.stop()
        await ours.clean()
        with pytest.raises(Ended, match="foreign bob on there"):
            await ours.go(1, 1, 5)
        with pytest.raises(NodeError, match="bob on there"):
            await ours.finish(await ours.until_end(5))
        with pytest.raises(NodeError):
            await ours.fetch(tries=1)
        ours.close()

    run(every_way())
    assert sorted(path.name for path in theirs.iterdir()) == ["exit_code", "order.json", "owner", "samples.jsonl"]
    assert (theirs / "exit_code").read_text() == "0\n"


@pytest.mark.parametrize(
    "before", [r"printf '\033]0;x\007'", "echo Welcome", "echo 0", "echo ended 0", "printf %70000s x", "set -v"]
)
def test_what_a_shell_prints_of_its_own_is_no_answer(before: str, fleet: Fleet) -> None:
    # What was said before could pass for the end of a run that has still to measure.
    fleet.add(
        "jw2", MEASURES.replace("echo measured", "sleep 0.5; echo measured"), noisy(before, "echo 0; echo Goodbye")
    )
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert (fleet.nodes["jw2"].place / "samples.jsonl").read_text() == "measured\n"


def test_a_session_that_breaks_is_opened_again(fleet: Fleet) -> None:
    # The first one after the run has said something of itself, in the middle of the wait.
    says = """echo '{"state": "loading"}' > progress.json"""
    fleet.add("jw2", f"{says}; sleep 1; read -r shell < session; kill -9 $shell; sleep 1; {MEASURES}")
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert fleet.messages == [("jw2", "SSH connection lost, looking for it again; the run goes on")]
    assert ("jw2", "loading") in fleet.progress
    assert len(fleet.calls) == 2


def test_clocks_are_read_of_a_few_nodes_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CLOCKS_AT_ONCE", 1)
    spans: list[tuple[int, int]] = []

    def offset(trips: list[tuple[int, int, int]]) -> tuple[int, int]:
        spans.append((trips[0][0], trips[-1][2]))
        assert len(trips) == remote_run.TRIPS
        return clock_offset(trips)

    monkeypatch.setattr(measure, "clock_offset", offset)
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
    assert fleet.messages == [("jw2", "SSH connection lost, looking for it again; the run goes on")]
    assert len(fleet.calls) == 2


def test_who_is_not_alike_is_known_before_the_first_turn(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CLOCKS_AT_ONCE", 1)
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

    monkeypatch.setattr(measure, "agree", agree)
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


def test_a_node_that_waits_for_nobody_does_not_wait(fleet: Fleet) -> None:
    fleet.add("jw2", "echo measured > samples.jsonl", order={"wait_s": None})
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert not (fleet.run_dir / "start.json").exists()


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
    assert outcome.failures["jw2"].startswith("The node sends without end")


def test_a_large_archive_is_streamed_and_fetched_again(fleet: Fleet) -> None:
    programs = fleet.directory / "programs"
    programs.mkdir()
    # Breaks off in the middle, the first time.
    (programs / "head").write_text(
        '#!/bin/sh\ncase $3 in *.tar.gz) if [ ! -e "$0.broken" ]; then : > "$0.broken"; /usr/bin/head -c 100000 "$3"; '
        'kill -9 "$(cat session)"; exit; fi ;; esac\nexec /usr/bin/head "$@"\n'
    )
    (programs / "head").chmod(0o755)
    fleet.add(
        "jw2",
        "head -c 3000000 /dev/urandom > telemetry.jsonl; cp telemetry.jsonl ../../../..",
        call=lambda line: ["env", f"PATH={programs}:/usr/bin:/bin", "/bin/sh", "-c", line],
        order={"wait_s": None},
    )
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    sent = (fleet.directory / "telemetry.jsonl").read_bytes()
    assert (fleet.nodes["jw2"].place / "telemetry.jsonl").read_bytes() == sent
    assert ("jw2", "SSH connection lost while fetching, trying again") in fleet.messages
    assert not list(fleet.nodes["jw2"].place.glob("*.tar.gz"))


def test_what_an_earlier_attempt_left_is_adopted_or_brought_back(fleet: Fleet) -> None:
    done = fleet.add("done", order={"attempt": 2})
    waits = fleet.add("waits", order={"attempt": 2, "wait_s": None}, python="echo new > samples.jsonl")
    for name, code in (("done", "0\n"), ("waits", "vanished")):
        there = fleet.there(name)
        there.mkdir(parents=True)
        (there / "samples.jsonl").write_text("old\n")
        (there / "order.json").write_text('{\n  "attempt": 1,\n  "wait_s": 60\n}\n')
        (there / "owner").write_text("ours\nalice on here\n")
        (there / "pid").write_text("1\n")
        if code.strip().isdigit():
            (there / "exit_code").write_text(code)
    outcome = fleet.measure()
    assert sorted(outcome.fetched) == ["done", "waits"], outcome.failures
    assert (done.place / "samples.jsonl").read_text() == "old\n"
    assert (waits.place / "attempt-1/samples.jsonl").read_text() == "old\n"
    assert (waits.place / "samples.jsonl").read_text() == "new\n"
    assert ("done", "an earlier attempt completed here: not run again") in fleet.messages


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
        {"jw2": f"{type(error).__name__}: {error}; where it came from: {path}."},
    )
    assert "in broken" in path.read_text()


def test_a_fault_of_our_own_leaves_nothing_running(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.add("jw2")

    async def broken(self: remote_run.RemoteRun, trips: int = 0) -> None:
        raise KeyError("jw3")

    monkeypatch.setattr(remote_run.RemoteRun, "read_clock", broken)
    outcome = fleet.measure()
    assert outcome.failures["jw2"].startswith("KeyError: 'jw3'; where it came from: ")
    assert outcome.failures["jw2"].endswith(" It was stopped; the others went on.")
    assert not fleet.there("jw2").exists()


def test_a_barrier_opens_when_all_that_have_not_left_are_here() -> None:
    async def passing() -> list[str]:
        barrier, passed = Barrier("abc"), list[str]()

        async def go(name: str) -> None:
            await barrier.wait(name)
            passed.append(name)

        going = [asyncio.ensure_future(go(name)) for name in "ab"]
        await asyncio.sleep(0.01)
        assert passed == []
        barrier.leave("c")
        barrier.leave("c")
        await asyncio.gather(*going)
        going = [asyncio.ensure_future(go("a"))]
        await asyncio.sleep(0.01)
        going[0].cancel()
        barrier.leave("a")
        await go("b")
        return passed

    assert run(passing()) == ["a", "b", "b"]


def test_it_takes_no_longer_than_the_slowest(fleet: Fleet, tmp_path: Path) -> None:
    began = time.monotonic()
    fleet.add("jw2", f"sleep 1; {MEASURES}")
    fleet.add("jw3")
    assert sorted(fleet.measure().fetched) == ["jw2", "jw3"]
    assert time.monotonic() - began > 1


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


def test_who_is_out_of_reach_in_a_step_is_left_behind(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "GONE_S", 0.2)
    dead, two = fleet.directory / "dead", {"measurements": 2}
    steps = STEPS.format(facts=FACTS, dies=0, over=0, last=":").replace("for step in 2 3", "for step in 2")
    fleet.add("jw2", steps, order=two)
    # As a machine that loses its power once it has its first start: no session, and none comes again.
    falls = f"until [ -f go ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session); exec sleep 600"
    script = f"echo '{FACTS}' > ready.tmp; mv ready.tmp ready; flock -u 8 2>/dev/null; {falls}"
    fleet.add("dies", script, call=lambda line: ["sh", "-c", f"[ ! -e {dead} ] || exit 255; {line}"], order=two)
    outcome = fleet.measure()
    # The time limit is a minute: whoever waited for that would say another reason.
    assert outcome.fetched == ["jw2"]
    assert "they went on without it" in failure(fleet, "dies")
    dead.unlink()
    run(fleet.remote_run(fleet.nodes["dies"]).stop())
