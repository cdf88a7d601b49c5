"""The steps in order, and how long they take at a rate."""

from pathlib import Path

import pytest

from benchmark.cluster.submission.plan import (
    Begun,
    begun,
    benchmark_of,
    plan_step,
    plan_text,
    scenarios_of,
)
from benchmark.cluster.submission.rules import DATACENTER, EDGE, Division
from benchmark.errors import InputError


def test_the_closed_division_is_measured_in_order() -> None:
    assert scenarios_of(DATACENTER, []) == ("Offline", "Server")
    assert scenarios_of(EDGE, []) == ("SingleStream", "Offline")
    assert scenarios_of(DATACENTER, ["Interactive", "Offline"]) == ("Offline", "Interactive")
    with pytest.raises(InputError, match=r"SingleStream: llama3.1-8b has Offline, Server, Interactive"):
        scenarios_of(DATACENTER, ["SingleStream"])
    with pytest.raises(InputError, match="give datacenter or edge"):
        benchmark_of("desktop")


@pytest.mark.parametrize(
    ("scenario", "qps", "seconds"),
    [
        # All articles take longer than 600 s; and at a higher rate they come several times, each equally often.
        ("Offline", 10, [1336.8, 1336.8, 10]),
        ("Offline", 100, [668.4, 133.68, 1]),
        ("Server", 0.5, [26736, 26736, 200]),
        ("Server", 60, [668.4, 222.8, 100 / 60]),
        ("Interactive", 4, [3342, 3342, 25]),
    ],
)
def test_a_steps_time_follows_from_its_rate(scenario: str, qps: float, seconds: list[float]) -> None:
    step = plan_step(DATACENTER, scenario, "closed", str(qps), qps)
    assert [taken for _, taken in step.parts] == pytest.approx(seconds)
    assert step.whole_s == pytest.approx(sum(seconds))
    assert step.timeout_s(1800) >= 2 * sum(seconds)
    assert step.timeout_s(500_000) == 500_000
    assert [taken for _, taken in plan_step(DATACENTER, scenario, "open", "1", qps).parts] == pytest.approx(seconds[:2])


def test_edge_has_5000_articles_and_a_search_takes_its_probes() -> None:
    single = plan_step(EDGE, "SingleStream", "open", "1", 5.0)
    assert [taken for _, taken in single.parts] == [1000, 1000]
    # As LoadGen did: 30,000 queries of 30.4 ms.
    assert plan_step(EDGE, "SingleStream", "open", "1", 1 / 0.0304).parts[0][1] == pytest.approx(912)
    assert plan_step(DATACENTER, "Server", "open", "auto", 20, search=True).parts[0] == (
        "search for the highest valid target",
        600,
    )


def test_what_is_not_known_is_said() -> None:
    step = plan_step(DATACENTER, "Server", "open", "auto", None, search=True)
    assert step.whole_s is None
    assert step.timeout_s(1800) == 7 * 86400
    runs = {
        "Offline": Begun("r1", "mlperf-offline, target 9.0", 9.0, ()),
        "Interactive": Begun("r2", "mlperf-interactive, target 4.0", None, ("jw3",)),
    }
    steps = [plan_step(DATACENTER, "Offline", "open", "9", 9.0), step]
    lines = plan_text([*steps, plan_step(DATACENTER, "Interactive", "open", "4", 4.0)], runs)
    assert lines[0] == "Step 1 of 3, Offline: already measured in the run r1 (mlperf-offline, target 9.0)."
    assert "accuracy over 13,368 articles of unknown length (at a rate that is still unknown)" in lines[1]
    begins = "Step 3 of 3, Interactive, continues in the run r2 (mlperf-interactive, target 4.0) with jw3: performance"
    assert lines[2].startswith(begins)
    assert lines[3].startswith("Together at least 2 h")


def test_a_step_is_done_where_every_node_has_all_of_it(tmp_path: Path, offline: Path, interactive: Path) -> None:
    (tmp_path / "latest").symlink_to(offline)
    run = begun(tmp_path, ["jw2", "jw3"], "open")
    assert run is not None
    assert run.qps
    assert (run.asked, run.left) == ("mlperf-offline, target 100.0", ())

    def left(nodes: list[str], division: Division) -> tuple[str, ...]:
        found = begun(tmp_path, nodes, division)
        assert found is not None
        return found.left

    assert left(["jw2", "jw4"], "open") == ("jw4",), "a node is new"
    assert left(["jw2"], "closed") == ("jw2",), "there is no audit"
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to(interactive)
    assert left(["jw2"], "open") == ("jw2",), "there is no accuracy"
    assert begun(tmp_path / "nowhere", ["jw2"], "open") is None
