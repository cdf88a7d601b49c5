"""The checks of benchmarks/everyday.py see what they are there to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import everyday_checks as checks
from benchmarks.everyday_checks import Everything
from benchmarks.everyday_people import Person, Run

PROFILES = {"short": {"samples": 2}}


def person(place: Path, name: str, *run_ids: str) -> Person:
    """Return somebody whose runs went well; each measured for a second, one after the other."""
    made = Person(name, name, (name, "shared"), place / name, Path("python3"))
    (made.checkout / "prometheus").mkdir(parents=True)
    for number, run_id in enumerate(run_ids):
        log = made.place / f"{number}.txt"
        log.write_text("it said why\n")
        made.runs.append(Run(number, "short", name, log, run_id, 0))
        node = made.results / run_id / "nodes" / "n1"
        node.mkdir(parents=True)
        (node / "samples.jsonl").write_text("{}\n{}\n")
        begin = (number + (100 if name == "b" else 0)) * 10**9
        result = {
            "engine": {"details": {"whose": name}},
            "window": {"started_unix_ns": begin, "ended_unix_ns": begin + 10**9},
            "environment": {"code": {"sha256": f"code of {name}"}},
        }
        (node / "mlperf_datacenter_n1_x.json").write_text(json.dumps(result))
        asked = {"attempts": [{"code": {"sha256": f"code of {name}"}}]}
        (made.results / run_id / "run.json").write_text(json.dumps(asked))
        cluster = {"counted": 1, "nodes": [{"node": "n1", "counted": True}]}
        (made.results / run_id / "aggregated_datacenter_results.json").write_text(json.dumps(cluster))
        (made.exports / "short.prom").write_text('llm_benchmark_gpus{profile="short"} 1\n')
        with made.notified.open("a") as notified:
            notified.write(json.dumps({"run_id": run_id}) + "\n")
    return made


@pytest.fixture
def everything(tmp_path: Path) -> Everything:
    return Everything([person(tmp_path, "a", "r1", "r2"), person(tmp_path, "b", "r3", "r4")], PROFILES, ["n1"])


def change(everything: Everything, **values: Any) -> None:
    """Change fields of the first result of b."""
    path = everything.people[1].results / "r3/nodes/n1/mlperf_datacenter_n1_x.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def lose_a_sample(everything: Everything) -> None:
    (everything.people[1].results / "r3/nodes/n1/samples.jsonl").write_text("{}\n")


def fail_a_run(everything: Everything) -> None:
    everything.people[1].runs[0].code = 2


def take_an_id_twice(everything: Everything) -> None:
    for path in everything.people[1].results.glob("r4"):
        path.rename(path.with_name("r1"))
    everything.people[1].runs[1].run_id = "r1"


def run_the_others_code(everything: Everything) -> None:
    change(everything, engine={"details": {"whose": "a"}})


def say_another_code(everything: Everything) -> None:
    change(everything, environment={"code": {"sha256": "code of a"}})


def measure_beside_another(everything: Everything) -> None:
    change(everything, window={"started_unix_ns": 5 * 10**8, "ended_unix_ns": 12 * 10**8})


def write_a_value_twice(everything: Everything) -> None:
    (everything.people[1].exports / "long.prom").write_text('llm_benchmark_gpus{profile="short"} 2\n')


def notify_twice(everything: Everything) -> None:
    with everything.people[1].notified.open("a") as notified:
        notified.write('{"run_id": "r3"}\n')


FAULTS = {
    lose_a_sample: (checks.nothing_lost, "b, r3: n1 has 1 samples"),
    fail_a_run: (checks.nothing_lost, "b, run 1, r3: exit code 2: it said why"),
    take_an_id_twice: (checks.unique_ids, "r1 is the id of 2 runs"),
    run_the_others_code: (checks.own_code, "b, r3: n1 as b ran the code of a"),
    say_another_code: (checks.known_code, "r3: n1 says ['code of a'], run.json ['code of b']"),
    measure_beside_another: (checks.alone_on_a_node, "n1: a's r1 and b's r3 overlap by 0.50 s"),
    write_a_value_twice: (checks.prometheus, 'b: 2 times llm_benchmark_gpus{profile="short"}'),
    notify_twice: (checks.notified, "b, r3: notified 2 times"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_check_is_silent_until_something_is_wrong(fault: Any, everything: Everything) -> None:
    check, said = FAULTS[fault]
    count, problems = check(everything)
    assert (count > 0, problems) == (True, [])
    fault(everything)
    assert said in check(everything)[1]
