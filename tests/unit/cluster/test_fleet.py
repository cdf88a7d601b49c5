"""What a person sees of all nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.fleet import DONE, FAILED, WAITING, Fleet
from benchmark.progress import Progress
from benchmark.text.columns import columns


def fleet_of(count: int) -> Fleet:
    """Return a fleet that measures: node 1 has done 1 of 1000 queries, node 2 has done 2, and so on."""
    fleet = Fleet()
    for number in range(1, count + 1):
        fleet.report(f"node{number}", Progress("measuring", number, 1000, 2.0, 500.0, (1000 - number) / 2), now=100.0)
    return fleet


def test_all_nodes_in_their_order_where_there_is_room() -> None:
    fleet = fleet_of(11)
    fleet.put("jw1", WAITING, 100.0)
    lines = fleet.screen(100, 20, now=110.0)
    assert lines[0] == "12 nodes: 1 waiting, 11 measuring; 66/11,000 queries; 22.00 QPS; 8:10 left"
    assert lines[1].split() == ["NODE", "STAGE", "QUERIES", "QPS", "LEFT"]
    assert [line.split()[0] for line in lines[2:]] == ["jw1", *(f"node{n}" for n in range(1, 12))]
    # Ten seconds have passed since the node said it.
    assert lines[3].split() == ["node1", "measuring", "1/1,000", "2.00", "8:10"]


def test_two_hundred_nodes_are_one_screen_with_the_slowest() -> None:
    fleet = fleet_of(200)
    fleet.put("node1", DONE, 100.0)
    fleet.put("node2", FAILED, 100.0)
    fleet.report("node150", Progress("loading"), 100.0)
    lines = fleet.screen(80, 10, now=100.0)
    assert len(lines) == 10
    # Those behind in their stage first; who has ended is not slow.
    assert [line.split()[0] for line in lines[2:-1]] == ["node3", "node4", "node5", "node6", "node7", "node8", "node9"]
    assert lines[-1] == "and 193 more; shown are the slowest"
    assert "1 done, 1 failed" in lines[0]


def test_a_node_in_an_earlier_stage_is_slower() -> None:
    fleet = Fleet()
    fleet.report("a", Progress("loading"), 0.0)
    for name in "abcdefgh":
        fleet.report(name, Progress("measuring", 1, 10), 0.0)
    fleet.report("h", Progress("loading"), 0.0)
    assert fleet.screen(80, 5, 0.0)[2].split()[:2] == ["a", "measuring"]
    assert fleet.screen(80, 5, 0.0)[3].split()[:2] == ["h", "loading"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=40), st.text(max_size=100), min_size=1, max_size=40),
    st.integers(20, 200),
    st.integers(3, 50),
)
def test_the_screen_fits_and_is_harmless(nodes: dict[str, str], width: int, height: int) -> None:
    fleet = Fleet()
    for node, state in nodes.items():
        fleet.report(node, Progress(state, 5, 10, 1.0, 1.0, 5.0), 0.0)
    lines = fleet.screen(width, height, 1.0)
    assert len(lines) <= height
    assert all(columns(line) <= width and line.isprintable() for line in lines)
    assert all(line.isprintable() for line in [*fleet.changes(), fleet.summary(0.0)])


def test_lines_tell_changes_once_and_many_nodes_share_one() -> None:
    fleet = fleet_of(9)
    assert fleet.changes() == ["9 nodes: measuring (node1, node2, node3, node4, node5 and 4 more)"]
    fleet.report("node3", Progress("measuring", 500, 1000), 0.0)
    fleet.report("node4", Progress("accuracy"), 0.0)
    assert fleet.changes() == ["node4: accuracy"]
    assert fleet.changes() == []


def test_what_is_heard_after_the_end_is_old() -> None:
    fleet = fleet_of(1)
    fleet.put("node1", DONE, 0.0)
    fleet.report("node1", Progress("measuring", 999, 1000), 0.0)
    assert fleet.summary(0.0) == "1 node: 1 done"
    assert not fleet.runs("node1")
    fleet.put("node1", "benchmark", 0.0)
    fleet.report("node1", Progress("loading"), 0.0)
    assert fleet.runs("node1")
    assert fleet.summary(0.0) == "1 node: 1 loading"


@pytest.mark.parametrize("left_s", [None, 3.0])
def test_time_left_is_absent_where_it_is_unknown_or_has_passed(left_s: float | None) -> None:
    fleet = Fleet()
    fleet.report("a", Progress("measuring", 5, 10, 1.0, None, left_s), now=0.0)
    fleet.report("b", Progress("measuring", 5, 10, 1.0, None, 60.0), now=0.0)
    assert "left" not in fleet.summary(now=4.0)
    assert fleet.screen(80, 10, now=4.0)[2].split() == ["a", "measuring", "5/10", "1.00"]


def test_a_node_that_tells_many_stages_cannot_fill_the_memory() -> None:
    fleet = Fleet()
    for number in range(10_000):
        fleet.report("liar", Progress(f"stage {number}"), 0.0)
    assert len(fleet._rank) <= 50
    assert fleet.summary(0.0) == "1 node: 1 stage 9999"


def test_who_is_through_with_a_stage_is_shown_so() -> None:
    fleet = Fleet()
    for node in ("a", "b"):
        fleet.put(node, "python_env", 0.0)
    fleet.put("a", WAITING, 151.0)
    assert fleet.changes() == ["a: python_env done, 2:31"]
    assert fleet.screen(80, 10, 151.0)[2:] == ["a     waiting: python_env done", "b     python_env"]
    fleet.put("b", WAITING, 0.5)
    assert fleet.changes() == [], "too brief for a line"


def test_what_is_done_within_a_stage_is_shown_with_its_size() -> None:
    fleet = Fleet()
    fleet.put("a", "hf_cache", 0.0)
    fleet.report("a", Progress("hf_cache", detail="16.1 GB in 9 files to download"), 1.0)
    assert fleet.changes() == ["a: hf_cache: 16.1 GB in 9 files to download"]
    fleet.report("a", Progress("hf_cache", detail="3.2 GB of 16.1 GB downloaded"), 6.0)
    assert fleet.changes() == [], "now and then is enough"
    line = "a: hf_cache: 3.2 GB of 16.1 GB downloaded"
    assert fleet.lines(6.0)[1:] == [line]
    assert fleet.lines(36.0) == ["1 node: 1 hf_cache (for 0:30)", f"{line} (for 0:30)"], "no line twice as it was"
    fleet.report("a", Progress("hf_cache", detail="3.3 GB of 16.1 GB downloaded"), 40.0)
    assert fleet.lines(66.0)[1:] == ["a: hf_cache: 3.3 GB of 16.1 GB downloaded"]
    fleet.report("a", Progress("hf_cache", detail="3.2 GB of 16.1 GB downloaded"), 6.0)
    assert fleet.screen(80, 10, 6.0)[2] == "a     hf_cache: 3.2 GB of 16.1 GB downloaded"
    assert not fleet.runs("a"), "that is no run"
    fleet.put("a", WAITING, 61.0)
    assert fleet.changes() == ["a: hf_cache done, 1:01"]
    assert fleet.lines(61.0)[1:] == []


def test_a_column_that_is_empty_has_no_head() -> None:
    fleet = Fleet()
    fleet.report("a", Progress("measuring, step 2 of 8", 20, qps=4.0), 0.0)
    assert fleet.screen(80, 10, 0.0)[1].split() == ["NODE", "STAGE", "QUERIES", "QPS"]
    fleet.report("a", Progress("measuring, step 2 of 8", 30, 100, 4.0, left_s=17.0), 0.0)
    assert fleet.screen(80, 10, 0.0)[1].split() == ["NODE", "STAGE", "QUERIES", "QPS", "LEFT"]
