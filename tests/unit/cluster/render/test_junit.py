"""JUnit XML: who failed how, and that nothing in it breaks a reader."""

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.junit import CLUSTER, render_junit
from benchmark.files import write_record
from benchmark.records import Check, ClusterResult, Failure, NodeRow, Verdict
from benchmark.rundir import read_run
from tests.unit.building import RUN_ID, add_node, asked, make_run

FAST, SLOW = [1700.0, 1800.0, 1900.0], [4000.0] * 3


def of(run_dir: Path, broke: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(render_junit(Outcome(read_run(run_dir), aggregate(run_dir), broke)))


def suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    (found,) = [one for one in root if one.get("name") == name]
    return found


def counts(element: ElementTree.Element) -> tuple[int, int, int]:
    return int(element.get("tests", "")), int(element.get("failures", "")), int(element.get("errors", ""))


def case(of_suite: ElementTree.Element, name: str) -> ElementTree.Element:
    (found,) = [one for one in of_suite.iter("testcase") if one.get("name") == name]
    return found


def test_a_valid_run_has_a_case_per_check_and_no_failure(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node in ("jw2", "jw3"):
        add_node(tmp_path, node, asked(3), FAST)
    root = of(tmp_path)
    assert [one.get("name") for one in root] == ["jw2", "jw3", CLUSTER]
    checks = aggregate(tmp_path).nodes[0].verdict
    assert checks is not None
    assert counts(suite(root, "jw2")) == (len(checks.checks) + 1, 0, 0)
    assert counts(root) == (sum(len(list(one.iter("testcase"))) for one in root), 0, 0)
    assert (case(suite(root, "jw2"), "QPS").findtext("system-out") or "").startswith("QPS: 0.556, at least 0.45")
    properties = {one.get("name"): one.get("value") for one in suite(root, CLUSTER).iter("property")}
    assert properties["run_id"] == RUN_ID
    assert properties["disclaimer"] == "unverified, not an MLCommons submission"


def test_failures_are_checks_and_errors_are_nodes(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3), "jw4": asked(3)})
    add_node(tmp_path, "jw2", asked(3), SLOW)
    reported = Failure(node="jw3", stage="preflight", reason="Not reachable: <refused> & gone.\nAnd the disk is full.")
    write_record(tmp_path / "nodes" / "jw3" / "failure.json", reported)
    root = of(tmp_path)
    slow = suite(root, "jw2")
    assert counts(slow)[1:] == (3, 0)  # two checks and the verdict
    failure = case(slow, "P99 latency").find("failure")
    assert failure is not None
    assert (failure.get("message") or "").startswith("P99 latency: 4000 ms, at most 3000 ms")
    error = case(suite(root, "jw3"), "verdict").find("error")
    assert error is not None
    assert error.get("type") == "failed"
    assert error.get("message") == "preflight: Not reachable: <refused> & gone. And the disk is full."
    missing = case(suite(root, "jw4"), "verdict").find("error")
    assert missing is not None
    assert (missing.get("type"), missing.text) == ("missing", "No result came back.")
    verdict = case(suite(root, CLUSTER), "verdict").find("failure")
    assert verdict is not None
    assert "2 of 3 nodes are not counted: jw3, jw4." in (verdict.text or "")
    assert counts(root)[1:] == (sum(counts(one)[1] for one in root), 2)


def test_a_playbook_that_broke_is_an_error(tmp_path: Path) -> None:
    root = ElementTree.fromstring(render_junit(Outcome(broke="No run was opened.\nbenchmark_modell is not a setting.")))
    assert counts(root) == (1, 0, 1)
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), FAST)
    assert counts(of(tmp_path))[1:] == (0, 0)
    error = case(suite(of(tmp_path, "It was interrupted."), CLUSTER), "playbook").find("error")
    assert error is not None
    assert error.text == "It was interrupted."


# What JSON can hold: a lone surrogate it cannot.
ODD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(ODD, min_size=4, max_size=4), st.booleans())
def test_any_text_gives_a_document_with_the_same_cases(texts: list[str], counted: bool) -> None:
    name, metric, note, reason = texts
    check = Check(metric=metric, value=None, comparison="holds", limit=1, passed=False, note=note)
    verdict = Verdict(valid=False, checks=(check, check), reasons=(reason,))
    row = NodeRow(
        node=name,
        status="complete" if counted else "failed",
        counted=counted,
        reason=reason,
        verdict=verdict if counted else None,
    )
    result = ClusterResult(
        run_id=RUN_ID, profile=name, asked=1, counted=int(counted), nodes=(row,), groups=(), overlap=None,
        problems=(note,), verdict=verdict,
    )  # fmt: skip
    root = ElementTree.fromstring(render_junit(Outcome(None, result)))
    assert counts(root[0]) == ((3, 3, 0) if counted else (1, 0, 1))
    names = [one.get("name") for one in root[0].iter("testcase")]
    assert len(set(names)) == len(names)
