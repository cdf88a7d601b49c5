"""The servers and the driver of a system on this machine: nothing is started for a system that cannot be measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmark.fleet import reach
from benchmark.fleet.measure import Outcome
from benchmark.fleet.system import SystemMeasurement
from benchmark.records import DRIVER
from tests.unit.fleet.by_hand import MEASURES, Fleet, run

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
            "Nothing was measured: without jw2 too few nodes serve; benchmark_min_nodes requires 2 of 2 nodes.",
        ),
    ],
)
def test_a_node_that_failed_before(where: str, needed: int, reason: str, fleet: Fleet) -> None:
    outcome = measure(fleet, ["jw3"], needed, where)
    assert outcome.failures == {"jw3": reason, DRIVER: reason}
    assert fleet.calls == [], "nobody was spoken with"


def drives() -> str:
    """Return what a driver does, in the shell: it tries the ports, hears who serves, and measures."""
    return f"""put() {{ printf '%s' "$2" > $1.part; mv $1.part $1; }}
until [ -f try ]; do sleep 0.02; done
put tried '{{}}'
until [ -f serving ]; do sleep 0.02; done
cp serving endpoint.log
{MEASURES}"""


def serves(node: str, loads: str = ":") -> str:
    server = json.dumps({"node": node, "url": "http://127.0.0.1:8000", "replicas": 1})
    return f"""echo 8000 > listens
until [ -f load ]; do sleep 0.02; done
{loads}
echo '{server}' > serves
{MEASURES.replace("echo measured > samples.jsonl", "")}
until [ -f windows ]; do sleep 0.02; done"""


@pytest.mark.parametrize("needed", [1, 2])
@pytest.mark.parametrize("when", ["before it listens", "while it loads"])
def test_a_server_that_is_lost_is_left_behind_unless_needed(
    when: str, needed: int, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too few would be left without it, all have nothing to lose by waiting: it may come back."""
    monkeypatch.setattr(reach, "GONE_S", 0.2)
    dead = fleet.directory / "dead"
    falls = f"until [ -s session ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session)"
    then = f"sleep 2; rm {dead}" if needed == 2 else "exec sleep 600"
    fleet.add("jw2", serves("jw2"), order={"limit_s": 60, "serves": PLACES[0]})
    early, late = (f"{falls}; {then}", ":") if when == "before it listens" else (":", f"{falls}; {then}")
    fleet.add(
        "jw3",
        f"{early}\n{serves('jw3', late)}",
        call=lambda line: ["sh", "-c", f"[ ! -e {dead} ] || exit 255; {line}"],
        order={"limit_s": 60, "serves": PLACES[1]},
    )
    fleet.add(DRIVER, drives(), order={"limit_s": 60, "drives": PLACES})
    fleet.measurement()
    each = list(fleet.nodes.values())
    outcome = run(SystemMeasurement(fleet.run_dir, each, fleet.reports, needed=needed, where="the controller").run())
    servers = [server["node"] for server in json.loads((fleet.nodes[DRIVER].place / "endpoint.log").read_text())]
    if needed == 2:
        assert (sorted(outcome.fetched), servers) == ([DRIVER, "jw2", "jw3"], ["jw2", "jw3"]), outcome.failures
        return
    assert (sorted(outcome.fetched), servers) == ([DRIVER, "jw2"], ["jw2"]), outcome.failures
    assert "they went on without it" in outcome.failures["jw3"]
    dead.unlink()
    run(fleet.remote_run(fleet.nodes["jw3"]).stop())


def test_a_driver_that_is_lost_is_looked_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server could go on without it."""
    monkeypatch.setattr(reach, "GONE_S", 0.2)
    dead = fleet.directory / "dead"
    falls = f"until [ -s session ]; do sleep 0.02; done; touch {dead}; kill -9 $(cat session); sleep 2; rm {dead}"
    fleet.add("jw2", serves("jw2"), order={"limit_s": 60, "serves": PLACES[0]})
    fleet.add(
        DRIVER,
        drives().replace("cp serving", f"{falls}; cp serving"),
        call=lambda line: ["sh", "-c", f"[ ! -e {dead} ] || exit 255; {line}"],
        order={"limit_s": 60, "drives": PLACES[:1]},
    )
    fleet.measurement()
    each = list(fleet.nodes.values())
    outcome = run(SystemMeasurement(fleet.run_dir, each, fleet.reports, needed=1, where="jw2").run())
    assert sorted(outcome.fetched) == [DRIVER, "jw2"], outcome.failures


def test_who_ends_for_want_of_another_is_not_missing(fleet: Fleet) -> None:
    """The reason of all is the node that failed, and not those that were stopped for it."""
    fleet.add("jw2", serves("jw2", "sleep 2"), order={"limit_s": 60, "serves": PLACES[0]})
    fleet.add("jw3", serves("jw3", "exit 4"), order={"limit_s": 60, "serves": PLACES[1]})
    fleet.add(DRIVER, drives(), order={"limit_s": 60, "drives": PLACES})
    fleet.measurement()
    each = list(fleet.nodes.values())
    failures = run(
        SystemMeasurement(fleet.run_dir, each, fleet.reports, needed=2, where="the controller").run()
    ).failures
    assert "exit code 4" in failures["jw3"], failures
    reason = "Nothing was measured: without jw3 too few nodes serve; benchmark_min_nodes requires 2 of 2 nodes."
    assert (failures["jw2"], failures[DRIVER]) == (f"{reason} It was stopped.",) * 2


@pytest.mark.parametrize("needed", [1, 2])
def test_a_server_that_dies_while_the_driver_searches(needed: int, fleet: Fleet) -> None:
    """It ends the search at once where too few are left, and nothing is measured."""
    ready = "mv ready.tmp ready"
    fleet.add("jw2", serves("jw2"), order={"limit_s": 60, "serves": PLACES[0]})
    dies = serves("jw3").replace(ready, f"{ready}; sleep 1; exit 4")
    fleet.add("jw3", dies, order={"limit_s": 60, "serves": PLACES[1]})
    searches = drives().replace("cp serving", f"sleep {600 if needed == 2 else 3}; cp serving")
    fleet.add(DRIVER, searches, order={"limit_s": 60, "drives": PLACES})
    fleet.measurement()
    each = list(fleet.nodes.values())
    outcome = run(SystemMeasurement(fleet.run_dir, each, fleet.reports, needed=needed, where="the controller").run())
    assert "exit code 4" in outcome.failures.pop("jw3")
    if needed == 1:
        assert sorted(outcome.fetched) == [DRIVER, "jw2"], outcome.failures
        return
    reason = "Nothing was measured: without jw3 too few nodes serve; benchmark_min_nodes requires 2 of 2 nodes."
    assert outcome.failures == dict.fromkeys((DRIVER, "jw2"), f"{reason} It was stopped.")
