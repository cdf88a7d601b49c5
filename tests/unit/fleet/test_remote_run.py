"""One node's run: whose it is, what is heard of it, and what an earlier attempt left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmark.fleet.errors import Ended, NodeError
from tests.unit.fleet.by_hand import MEASURES, Fleet, failure, noisy, run


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
    assert fleet.messages == [("jw2", "SSH connection lost, reconnecting; the run goes on")]
    assert ("jw2", "loading") in fleet.progress
    assert len(fleet.calls) == 2


def loses(fleet: Fleet, answer: str) -> Callable[[str], list[str]]:
    """Run a command line on this machine; the first session breaks before that answer."""

    def call(line: str) -> list[str]:
        lost = f"exec > >(exec sed -u '/ {answer}$/Q'); " if len(fleet.calls) == 1 else ""
        return ["bash", "-c", f"{lost}{line}"]

    return call


def test_a_removal_whose_answer_is_lost_is_asked_for_again(fleet: Fleet) -> None:
    fleet.add("jw2", call=loses(fleet, "cleaned"))
    assert fleet.measure().fetched == ["jw2"]
    assert fleet.messages == [("jw2", "SSH connection lost, trying again")]


def test_what_cannot_be_removed_is_said_with_what_to_do(fleet: Fleet) -> None:
    fleet.add("jw2", call=lambda line: ["bash", "-c", f"exec > >(exec sed -u '/ cleaned$/Q'); {line}"])
    assert fleet.measure().fetched == ["jw2"]
    said = "its results were fetched but not removed from the node: playbooks/clean.yml removes them"
    assert fleet.messages[-1] == ("jw2", said)


def test_a_start_whose_answer_is_lost_is_asked_for_again(fleet: Fleet) -> None:
    """It has begun all the same: nobody else would end it before its time limit."""
    log = fleet.directory / "starts"
    fleet.add("jw2", f"echo started >> {log}; {MEASURES}", loses(fleet, "started"))
    outcome = fleet.measure()
    assert outcome.fetched == ["jw2"], outcome.failures
    assert log.read_text() == "started\n"
    assert not fleet.there("jw2").exists()


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
    assert ("done", "an earlier attempt has completed: not run again") in fleet.messages


def test_what_a_node_itself_ended_names_its_whole_limit(fleet: Fleet) -> None:
    node = fleet.add("jw2", order={"limit_s": 90, "measurements": 2})
    alone = fleet.add("alone", order={"wait_s": None})
    for name in fleet.nodes:
        there = fleet.there(name)
        there.mkdir(parents=True)
        (there / "owner").write_text("ours\nalice on here\n")
        (there / "exit_code").write_text("124\n")
        (there / "benchmark.log").write_text("")
    hung = r"^The benchmark hung: it was stopped after benchmark_timeout_s = 60 s"
    waits = r" for each of 2 measurements, plus the time that it may wait for others: 90 s in all\.$"
    with pytest.raises(NodeError, match=hung + waits):
        run(fleet.remote_run(node).finish("124"))
    with pytest.raises(NodeError, match=rf"{hung}\.$"):
        run(fleet.remote_run(alone).finish("124"))
