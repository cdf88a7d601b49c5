"""Nodes on this machine, each a directory and a shell, are gathered and told a start."""

import base64
import itertools
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

import gathering as gathering_module
from gathering import Gathering, Partner, State
from speaking import Commands, Session, Speaker

from benchmark.cluster.fetched import Packed
from benchmark.cluster.together import clock_offset
from benchmark.progress import Told
from tests.unit.plugins.by_hand import SCRIPTS, Heard, Node, told


def test_all_that_are_ready_are_told_and_who_has_ended_or_is_late_is_not(nodes: list[Node], heard: Heard) -> None:
    prompt, broken, late = nodes
    prompt.put("ready", "facts of jw2")
    broken.put("exit_code", "4\n")
    late.put("progress.json", Told("loading").text())
    partners = [prompt.partner(), broken.partner(), late.partner(within_s=1)]
    gathering = heard.gather(*partners)
    gathering.wait_until_ready()
    assert told(partners) == [State.READY, State.ENDED, State.LEFT]
    gathering.read_clocks()
    assert told(partners) == [State.READY, State.ENDED, State.LEFT]
    assert partners[0].facts == "facts of jw2"
    assert ("jw4", "loading") in heard.told
    # One machine, one clock.
    offset_ns, uncertainty_ns = clock_offset(partners[0].trips)
    assert abs(offset_ns) <= uncertainty_ns
    assert gathering.try_out_s() > 0
    gathering.tell(dict.fromkeys(("jw2", "jw3", "jw4"), 123), time.time_ns() + 10**11)
    gathering.close()
    assert told(partners) == [State.TOLD, State.ENDED, State.LEFT]
    assert (prompt.place / "go").read_text() == "123\n"
    assert not (broken.place / "go").exists()
    assert not (late.place / "go").exists()
    assert heard.said == []


def gets_ready_later(node: Node, heard: Heard) -> Partner:
    """Gather a node that is ready half a second after it is first asked."""
    partner = node.partner()
    gathering = heard.gather(partner)
    getting_ready = threading.Timer(0.5, node.put, ("ready", "facts"))
    getting_ready.start()
    gathering.wait_until_ready()
    gathering.close()
    return partner


def test_a_node_that_gets_ready_later_is_heard_of(nodes: list[Node], heard: Heard) -> None:
    partner = gets_ready_later(nodes[0], heard)
    assert (partner.state, partner.facts) == (State.READY, "facts")


def test_a_run_whose_number_is_just_being_written_is_not_taken_for_one_that_is_gone(
    nodes: list[Node], heard: Heard
) -> None:
    (nodes[0].place / "pid").touch()
    partner = gets_ready_later(nodes[0], heard)
    assert partner.state is State.READY


def test_a_session_that_breaks_is_opened_again_and_the_word_said_again(
    nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "RETRY_S", 0)
    node = nodes[0]
    node.put("ready", "facts")
    resets: list[int] = []

    def call() -> Speaker:
        if not node.calls:
            node.calls += 1
            return Session(["sh", "-c", "echo cut off >&2; exit 255"])
        return node.call()

    partner = node.partner(call=call)
    partner.reset = lambda: resets.append(1)
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    assert told([partner]) == [State.READY]
    assert heard.said == [("jw2", "SSH connection lost, looking for it again; the run goes on")]
    assert resets == [1]
    # It breaks once more, just when the node is told.
    assert isinstance(partner.speaker, Session)
    partner.speaker._process.kill()
    gathering.tell({"jw2": 7}, time.time_ns() + 10**11)
    gathering.close()
    assert partner.state is State.TOLD
    assert (node.place / "go").read_text() == "7\n"


def test_clocks_are_read_of_a_few_nodes_at_a_time_and_of_one_whose_session_breaks_again(
    nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "RETRY_S", 0)
    monkeypatch.setattr(gathering_module, "CLOCKS_AT_ONCE", 1)
    for node in nodes:
        node.put("ready", "facts")
    broken = nodes[2]

    def call() -> Speaker:
        if broken.calls:
            return broken.call()
        broken.calls += 1
        return Session(["sh", "-c", "echo ready facts; read -r word; exit 255"])

    partners = [nodes[0].partner(), nodes[1].partner(), broken.partner(call=call)]
    gathering = heard.gather(*partners)
    gathering.wait_until_ready()
    assert not any(one.trips for one in partners), "not while others load"
    gathering.read_clocks()
    gathering.close()
    assert told(partners) == [State.READY] * 3
    assert [len(one.trips) for one in partners] == [gathering_module.TRIPS] * 3
    spans = sorted((one.trips[0][0], one.trips[-1][2]) for one in partners)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), "one after the other"


def test_a_node_that_does_not_tell_its_clock_is_left(
    nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "SILENCE_S", 1)
    partner = nodes[0].partner(call=lambda: Session(["sh", "-c", "echo ready facts; exec sleep 600"]))
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.read_clocks()
    gathering.close()
    assert partner.state is State.LEFT


def test_a_node_that_cannot_be_told_in_time_is_left(nodes: list[Node], heard: Heard) -> None:
    deaf = 'echo "ready facts"; for i in 1 2 3 4 5; do read -r word; echo "clock $(date +%s%N)"; done; sleep 600'
    partner = nodes[0].partner(call=lambda: Session(["sh", "-c", deaf]))
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.read_clocks()
    assert told([partner]) == [State.READY]
    gathering.tell({"jw2": 7}, time.time_ns())
    gathering.close()
    assert partner.state is State.LEFT


def test_what_a_node_says_without_end_is_not_taken(nodes: list[Node], heard: Heard) -> None:
    partner = nodes[0].partner(within_s=2, call=lambda: Session(["sh", "-c", f"exec yes {'x' * 4000}"]))
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.close()
    assert partner.state is State.LEFT
    assert partner.lost == "it sends without end"


@pytest.mark.parametrize("line", ["clock %N", "clock", "clock -5", "clock " + "9" * 30, "clock 1e9"])
def test_a_clock_that_cannot_be_read_gives_no_trip(line: str, nodes: list[Node], heard: Heard) -> None:
    words = f'echo "ready facts"; while read -r word; do echo "{line}"; done'
    partner = nodes[0].partner(call=lambda: Session(["sh", "-c", words]))
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.read_clocks()
    gathering.close()
    assert (partner.state, partner.trips) == (State.READY, [])


def test_nodes_measure_alone_one_after_the_other(nodes: list[Node], heard: Heard) -> None:
    order: list[str] = []

    def measure(node: Node) -> None:
        while not (node.place / "turn").exists():
            time.sleep(0.01)
        order.append(f"{node.name} begins")
        time.sleep(0.3)
        order.append(f"{node.name} ends")
        node.put("turn_over", "")

    for node in nodes:
        node.put("ready", "")
    threads = [threading.Thread(target=measure, args=(node,)) for node in nodes[:2]]
    for thread in threads:
        thread.start()
    partners = [node.partner() for node in nodes]
    gathering = heard.gather(*partners)
    gathering.wait_until_ready()
    late = gathering.take_turns({"jw2": 60, "jw3": 60, "jw4": 1})
    gathering.close()
    for thread in threads:
        thread.join()
    assert order == ["jw2 begins", "jw2 ends", "jw3 begins", "jw3 ends"]
    assert late == ["jw4"]
    assert told(partners) == [State.READY, State.READY, State.LEFT]


def told_the_start(heard: Heard, *partners: Partner) -> Gathering:
    gathering = heard.gather(*partners)
    gathering.wait_until_ready()
    gathering.read_clocks()
    gathering.tell({one.node: 123 for one in partners}, time.time_ns() + 10**11)
    assert {one.state for one in partners} == {State.TOLD}
    return gathering


def test_what_a_completed_run_left_is_brought_home_and_a_failed_one_is_left_as_it_is(
    nodes: list[Node], heard: Heard, tmp_path: Path
) -> None:
    complete, failed, refused = nodes
    for node in nodes:
        node.put("ready", "")
        node.put("samples.jsonl", f"{node.name}\n")
    kept: dict[str, str] = {}

    def keep(one: Partner) -> bool:
        packed = Packed.parse("\n".join(one.packed[:-1]))
        archive = tmp_path / "archive.tar.gz"
        archive.write_bytes(base64.b64decode(packed.inline))
        assert archive.stat().st_size == packed.size
        assert packed.files == ("samples.jsonl",)
        with tarfile.open(archive) as tar:
            content = tar.extractfile("./samples.jsonl")
            assert content is not None
            kept[one.node] = content.read().decode()
        return one.node != "jw4"

    partners = [node.partner() for node in nodes]
    gathering = told_the_start(heard, *partners)
    progress = Told("measuring", 3, 6)
    complete.put("progress.json", progress.text())
    ending = threading.Timer(0.5, complete.put, ("exit_code", "1\n"))
    ending.start()
    failed.put("exit_code", "4\n")
    refused.put("exit_code", "0\n")
    gathering.bring_home(dict.fromkeys(("jw2", "jw3", "jw4"), 60), keep)
    gathering.close()
    assert told(partners) == [State.HOME, State.ENDED, State.ENDED]
    assert kept == {"jw2": "jw2\n", "jw4": "jw4\n"}
    assert ("jw2", "measuring") in heard.told
    assert not complete.place.exists()
    assert (failed.place / "samples.jsonl").exists()
    assert (refused.place / "samples.jsonl").exists()
    assert heard.said == []


def test_a_run_that_hangs_is_left_and_one_that_ends_unheard_is_not_asked_for_its_files(
    nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "RETRY_S", 0)
    hung, unheard = nodes[:2]
    for node in (hung, unheard):
        node.put("ready", "")
    partners = [hung.partner(), unheard.partner()]
    gathering = told_the_start(heard, *partners)
    assert isinstance(partners[1].speaker, Session)
    partners[1].speaker._process.kill()
    unheard.put("exit_code", "0\n")
    gathering.bring_home({"jw2": 1, "jw3": 60}, lambda one: pytest.fail("nothing was packed"))
    gathering.close()
    assert told(partners) == [State.LEFT, State.ENDED]
    assert heard.said == [("jw3", "SSH connection lost, looking for it again; the run goes on")]


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("echo ended 0 999999999", State.ENDED),  # to be fetched by itself
        ("echo ended 0 4; read -r word; exec yes packed", State.ENDED),
        ("echo ended 0 4; read -r word; exit 255", State.ENDED),
        ("echo ended 0 4; read -r word; exec sleep 600", State.LEFT),
        ("echo ended 0 4; read -r word; echo packed.; read -r word; exit 255", State.HOME),
        ("echo ended 0 4; read -r word; echo packed.; read -r word; exec sleep 600", State.HOME),
    ],
)
def test_whatever_a_node_does_about_its_files_the_others_do_not_wait_for_long(
    answer: str, left: State, nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "SILENCE_S", 1)
    ready = 'echo "ready facts"; for i in 1 2 3 4 5; do read -r word; echo "clock $(date +%s%N)"; done'
    partner = nodes[0].partner(
        call=lambda: Session(["sh", "-c", f"{ready}; read -r word; echo told; read -r word; {answer}"])
    )
    gathering = told_the_start(heard, partner)
    gathering.bring_home({"jw2": 60}, lambda one: True)
    gathering.close()
    assert partner.state is left


def test_where_there_are_no_sessions_commands_say_the_same(nodes: list[Node], heard: Heard) -> None:
    asked: list[str] = []

    def converse(say: Callable[[str], None], hear: Callable[[], str]) -> None:
        say("ready facts")
        while line := hear():
            asked.append(line)
            say(f"clock {time.time_ns()}" if line == "clock" else "told")

    partner = nodes[0].partner(call=partial(Commands, converse))
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.tell({"jw2": 7}, time.time_ns() + 10**11)
    gathering.close()
    assert (partner.state, asked[-1]) == (State.TOLD, "go 7")


def test_a_command_that_fails_ends_the_conversation_with_its_words() -> None:
    def converse(say: Callable[[str], None], hear: Callable[[], str]) -> None:
        raise OSError("no such container")

    commands = Commands(converse)
    while not commands.ended:
        commands.hear()
        time.sleep(0.01)
    assert commands.why == "no such container"
    commands.end()


def test_a_session_that_nobody_hears_any_more_ends_with_the_next_one_and_when_the_run_is_removed(
    nodes: list[Node],
) -> None:
    node = nodes[0]
    node.put("ready", "facts")
    first: Any = node.call()
    while not first.hear():
        time.sleep(0.01)
    second: Any = node.call()
    while not second.hear():
        time.sleep(0.01)
    assert first._process.wait(timeout=60) != 0
    subprocess.run(["sh", str(SCRIPTS / "clean.sh"), str(node.place.parent), node.name], check=True)
    assert second._process.wait(timeout=60) != 0
    assert not node.place.exists()
    first.end()
    second.end()


def test_a_session_that_is_hung_up_leaves_nothing_on_the_node(nodes: list[Node]) -> None:
    session: Any = nodes[0].call()
    nodes[0].put("ready", "facts")
    while not session.hear():
        time.sleep(0.01)
    session.end()
    assert session._process.returncode is not None
    left = subprocess.run(["pgrep", "-f", str(nodes[0].place.parent)], capture_output=True, text=True, check=False)
    assert not left.stdout
