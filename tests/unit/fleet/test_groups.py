"""Nodes of a group on this machine, each a directory and a shell: they meet, begin together and end together."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmark.files import write_record
from benchmark.fleet import groups, reach
from benchmark.fleet.groups import GroupedMeasurement
from benchmark.fleet.measure import Outcome
from benchmark.records import RunRecord
from benchmark.rundir import RUN_FILE
from tests.unit.building import RUN_ID
from tests.unit.fleet.by_hand import MEASURES, Fleet, run

PLACES = [{"node": name, "host": "127.0.0.1", "port": 8000 + number} for number, name in enumerate(("jw2", "jw3"))]


def meets(software: str = "0.33.0", unreached: str = "{}") -> str:
    """Return what a node of a group does before it loads, in the shell."""
    member = json.dumps({"port": 9000, "software": {"vllm": software}})
    return f"""put() {{ printf '%s' "$2" > $1.part; mv $1.part $1; }}
put listens '{member}'
until [ -f try ]; do sleep 0.02; done
put tried '{unreached}'
until [ -f load ]; do sleep 0.02; done
echo loads > loads"""


COMPUTES = f"""{MEASURES.replace("echo measured > samples.jsonl", "")}
until [ -f windows ]; do sleep 0.02; done
cat try > endpoint.log; cat windows > samples.jsonl"""


def add(fleet: Fleet, name: str, python: str, attempt: int = 1, **more: Any) -> None:
    rank = ("jw2", "jw3").index(name)
    order: dict[str, Any] = {"group": {"name": "a", "rank": rank, "places": PLACES}, "limit_s": 60, "attempt": attempt}
    fleet.add(name, python, order=order, **more)


def measure(fleet: Fleet) -> Outcome:
    resolved = {name: node.order.resolved for name, node in fleet.nodes.items()}
    record = RunRecord(run_id=RUN_ID, created_at="2025-01-02T03:04:05+00:00", command="x", versions={}, nodes=resolved)
    write_record(fleet.run_dir / RUN_FILE, record)
    return run(GroupedMeasurement(fleet.run_dir, list(fleet.nodes.values()), fleet.reports).run())


def test_they_meet_and_begin_with_all_others(fleet: Fleet) -> None:
    add(fleet, "jw2", f"{meets()}\n{MEASURES}")
    add(fleet, "jw3", f"{meets()}\n{COMPUTES}")
    fleet.add("alone")
    outcome = measure(fleet)
    assert (sorted(outcome.fetched), outcome.failures) == (["alone", "jw2", "jw3"], {})
    # The head left no result here, and so no windows.
    assert (fleet.nodes["jw3"].place / "samples.jsonl").read_text().strip() == "[]"
    assert json.loads((fleet.run_dir / "start.json").read_text())["nodes"] == ["alone", "jw2", "jw3"]
    tried = json.loads((fleet.nodes["jw3"].place / "endpoint.log").read_text())
    assert [(place["node"], place["port"]) for place in tried] == [("jw2", 8000), ("jw2", 9000)]


def test_who_cannot_be_reached_is_named_before_loading(fleet: Fleet) -> None:
    add(fleet, "jw2", f"{meets()}\n{MEASURES}")
    add(fleet, "jw3", f"{meets(unreached=json.dumps({'jw2': 'port 9000: no answer within 10 s'}))}\n{COMPUTES}")
    fleet.add("alone")
    outcome = measure(fleet)
    assert outcome.fetched == ["alone"]
    assert outcome.failures["jw3"].startswith(
        "It cannot reach jw2 at 127.0.0.1 (port 9000: no answer within 10 s), of its group a. Nothing was loaded: "
    )
    assert outcome.failures["jw2"].startswith("jw3, another node of its group a, failed: It cannot reach jw2 ")
    assert not list(fleet.directory.rglob("loads"))


def test_a_node_that_failed_before_fails_the_others(fleet: Fleet) -> None:
    add(fleet, "jw2", f"{meets()}\n{MEASURES}")
    outcome = measure(fleet)
    assert outcome.failures == {"jw2": "Nothing was measured: jw3 of its group, a, failed before."}


@pytest.mark.parametrize("gone", ["jw2", "jw3"])
def test_one_that_cannot_listen_is_named_by_the_other(gone: str, fleet: Fleet) -> None:
    """Whether it is the head or not, and whoever of the two comes first."""
    for name in ("jw2", "jw3"):
        add(fleet, name, "echo its port is taken >&2; exit 3" if name == gone else f"{meets()}\n{MEASURES}")
    outcome = measure(fleet)
    (other,) = {"jw2", "jw3"} - {gone}
    which = "the head" if gone == "jw2" else "another node"
    assert outcome.failures[gone] == "its port is taken"
    assert outcome.failures[other].startswith(f"{gone}, {which} of its group a, failed: its port is taken")


def test_one_that_ends_in_the_middle_ends_the_other(fleet: Fleet) -> None:
    add(fleet, "jw2", f"{meets()}\n{MEASURES}\nexec sleep 600")
    add(fleet, "jw3", f"{meets()}\n{MEASURES}\necho vLLM was killed >&2; exit 4")
    outcome = measure(fleet)
    assert outcome.failures["jw3"] == "vLLM was killed"
    assert outcome.failures["jw2"].startswith("jw3, another node of its group a, failed: vLLM was killed")
    assert not fleet.there("jw2").exists()


# Who is reported first may be either: whose server was killed ends the rest of it for up to ten seconds.
@pytest.mark.parametrize("first", ["jw2", "jw3"])
@pytest.mark.parametrize("killed", ["jw2", "jw3"])
def test_whose_server_ended_first_has_failed(killed: str, first: str, fleet: Fleet) -> None:
    for name in ("jw2", "jw3"):
        ended, why = (10**15, "vLLM was killed") if name == killed else (10**16, "No server can be reached any more")
        waits = "" if name == first else "sleep 1; "
        add(fleet, name, f"{meets()}\n{MEASURES}\n{waits}printf {ended} > server_ended; echo {why} >&2; exit 4")
    fleet.add("alone")
    outcome = measure(fleet)
    (other,) = {"jw2", "jw3"} - {killed}
    which = "the head" if killed == "jw2" else "another node"
    assert outcome.fetched == ["alone"]
    assert outcome.failures == {
        killed: "vLLM was killed",
        other: f"{killed}, {which} of its group a, failed: vLLM was killed",
    }


def test_one_whose_server_ends_alone_ends_the_others(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_SETTLE_S", 0.5)
    add(fleet, "jw2", f"{meets()}\n{MEASURES}\nprintf 100 > server_ended; echo vLLM was killed >&2; exit 4")
    add(fleet, "jw3", f"{meets()}\n{MEASURES}\nexec sleep 600")
    outcome = measure(fleet)
    assert outcome.failures["jw2"] == "vLLM was killed"
    assert outcome.failures["jw3"].startswith("jw2, the head of its group a, failed: vLLM was killed")
    assert not fleet.there("jw3").exists()


@pytest.mark.parametrize(("written", "ended_ns"), [("1000", 970), ("", 0), ("soon", 0), (None, 0)])
def test_when_a_server_ended_is_by_the_controllers_clock(written: str | None, ended_ns: int, tmp_path: Path) -> None:
    if written is not None:
        (tmp_path / "server_ended").write_text(written)
    assert groups._server_ended_ns(tmp_path, 30) == ended_ns


def left_by_an_earlier_attempt(fleet: Fleet, name: str, *files: str) -> None:
    """Make what a controller that died has left on a node: the run's files, and whether a run is at work there."""
    there = fleet.there(name)
    there.mkdir(parents=True)
    (there / "owner").write_text("ours\nalice\n")
    order = (fleet.nodes[name].place / "order.json").read_text().replace('"attempt": 2', '"attempt": 1')
    (there / "order.json").write_text(order)
    for file in files:
        word, _, content = file.partition("=")
        (there / word).write_text(content)


def test_what_a_head_measured_unseen_is_taken_with_its_group(fleet: Fleet) -> None:
    """The controller was killed: the head has completed since, the other still computes, and waits for the windows."""
    for name in ("jw2", "jw3"):
        add(fleet, name, "exit 4", attempt=2)
    left_by_an_earlier_attempt(fleet, "jw2", "exit_code=0\n", "go=1", "samples.jsonl=measured\n", "benchmark.log=")
    left_by_an_earlier_attempt(fleet, "jw3", "go=1", "benchmark.log=")
    there = fleet.there("jw3")
    computes = """echo $$ > pid; until [ -f windows ]; do sleep 0.02; done
    cat windows > samples.jsonl; echo 0 > exit_code.part; mv exit_code.part exit_code"""
    with subprocess.Popen(["sh", "-c", computes], cwd=there) as computing:
        outcome = measure(fleet)
        computing.wait(60)
    assert (sorted(outcome.fetched), outcome.failures) == (["jw2", "jw3"], {})
    assert (fleet.nodes["jw2"].place / "samples.jsonl").read_text() == "measured\n"
    assert (fleet.nodes["jw3"].place / "samples.jsonl").read_text().strip() == "[]"


def test_a_head_that_has_nothing_has_its_group_begin_anew(fleet: Fleet) -> None:
    add(fleet, "jw2", f"{meets()}\n{MEASURES}", attempt=2)
    add(fleet, "jw3", f"{meets()}\n{COMPUTES}", attempt=2)
    left_by_an_earlier_attempt(fleet, "jw3", "exit_code=0\n", "go=1", "samples.jsonl=old\n", "benchmark.log=")
    outcome = measure(fleet)
    assert (sorted(outcome.fetched), outcome.failures) == (["jw2", "jw3"], {})
    assert (fleet.nodes["jw3"].place / "samples.jsonl").read_text().strip() == "[]"
    assert (fleet.nodes["jw3"].place / "attempt-1" / "samples.jsonl").read_text() == "old\n"


def lost(dead: Path) -> dict[str, Any]:
    """Return how a node is called that cannot be reached from some moment on, as one without power."""
    return {"call": lambda line: ["sh", "-c", f"[ ! -e {dead} ] || exit 255; {line}"]}


@pytest.mark.parametrize("when", ["before it listens", "while it loads"])
def test_a_group_with_a_lost_node_holds_up_nobody(when: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "GONE_S", 0.2)
    dead = fleet.directory / "dead"
    falls = f"until [ -s session ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session); exec sleep 600"
    add(fleet, "jw2", f"{meets()}\n{MEASURES}")
    add(fleet, "jw3", falls if when == "before it listens" else f"{meets()}\n{falls}", **lost(dead))
    fleet.add("alone")
    outcome = measure(fleet)
    assert outcome.fetched == ["alone"]
    assert "they went on without it" in outcome.failures["jw3"]
    assert outcome.failures["jw2"].startswith("jw3, another node of its group a, failed: ")
    dead.unlink()
    run(fleet.remote_run(fleet.nodes["jw3"]).stop())


def test_a_group_alone_looks_for_its_lost_node(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of it could go on without."""
    monkeypatch.setattr(reach, "GONE_S", 0.2)
    dead = fleet.directory / "dead"
    falls = f"until [ -s session ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session); sleep 2; rm {dead}"
    add(fleet, "jw2", f"{meets()}\n{MEASURES}")
    add(fleet, "jw3", f"{falls}\n{meets()}\n{COMPUTES}", **lost(dead))
    assert sorted(measure(fleet).fetched) == ["jw2", "jw3"]
