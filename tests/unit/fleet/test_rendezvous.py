"""From round trips to clock offsets, and to one start for all."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.fleet.errors import Excluded
from benchmark.fleet.rendezvous import (
    LEAST_MARGIN_S,
    MOST_MARGIN_S,
    agree,
    clock_offset,
    limit_on_node_s,
    margin_s,
    patience_s,
    read_facts,
    read_unreached,
    repeats_s,
    turns_s,
)
from benchmark.records import ReadyNode
from tests.unit.building import HOST, asked, make_run

NOW = 1_735_787_045_000_000_000
DELAYS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=10)


@given(st.integers(-(10**15), 10**15), DELAYS)
def test_the_offset_is_wrong_by_no_more_than_it_says(offset: int, delays: list[tuple[int, int]]) -> None:
    """Each round trip takes some time to the node and some time back, as unlike as they may be."""
    trips, at = [], NOW
    for there, back in delays:
        trips.append((at, at + there + offset, at + there + back))
        at += there + back
    found, uncertainty = clock_offset(trips)
    assert abs(found - offset) <= uncertainty
    assert uncertainty == (min(there + back for there, back in delays) + 1) // 2


def test_a_round_trip_with_a_clock_set_back_says_nothing() -> None:
    assert clock_offset([(NOW, NOW, NOW - 5), (NOW, NOW + 70, NOW + 40)]) == (50, 20)
    for trips in ([], [(NOW, NOW, NOW - 5)]):
        with pytest.raises(ValueError, match="no round trip"):
            clock_offset(trips)


@given(st.floats(0, 1e6))
def test_the_margin_is_longer_than_telling_took(telling_s: float) -> None:
    assert LEAST_MARGIN_S <= margin_s(telling_s) <= MOST_MARGIN_S
    assert margin_s(telling_s) > telling_s or margin_s(telling_s) == MOST_MARGIN_S


def test_the_start_is_for_those_that_are_ready(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked() for node in ("jw2", "jw3", "jw4")})
    before = time.time_ns()
    start = agree(tmp_path, ("jw4", "jw2"), 1.0)
    assert start.margin_s == LEAST_MARGIN_S + 5
    assert before + int(5.5e9) <= start.start_unix_ns <= time.time_ns() + int(5.5e9)
    assert start.nodes == ("jw2", "jw4")
    assert json.loads((tmp_path / "start.json").read_text())["start_unix_ns"] == start.start_unix_ns


@pytest.mark.parametrize(
    ("nodes", "waits"),
    [
        ([{}], False),
        ([{}, {}], True),
        ([{"benchmark_sync_start": False}] * 2, False),
        ([{}, {"profile": {"accuracy": "only"}}], False),
        ([{}, {}, {"profile": {"accuracy": "only"}}], True),
    ],
)
def test_nobody_waits_for_nobody(nodes: list[dict[str, Any]], waits: bool) -> None:
    patience = patience_s([asked(**one) for one in nodes])
    assert (patience is not None) is waits
    # A node that was ready at once waits for the last one, whatever that one is given.
    assert patience is None or patience > 900


def get_ready(run_dir: Path, node: str, driver: str | None) -> None:
    environment = None if driver is None else HOST.model_copy(update={"driver": driver})
    ready = ReadyNode(
        node=node, launched_unix_ns=NOW, offset_ns=0, uncertainty_ns=2, round_trips=7, environment=environment
    )
    write_record(run_dir / "nodes" / node / "ready.json", ready)


def test_nodes_that_differ_are_not_started_where_drift_fails(tmp_path: Path) -> None:
    other = HOST.model_copy(update={"gpus": (HOST.gpus[0].model_copy(update={"name": "NVIDIA L4"}),), "driver": "1"})
    make_run(tmp_path, {node: asked() for node in ("jw2", "jw3", "jw4", "l4")})
    for node, driver in (("jw2", "550"), ("jw3", "535"), ("jw4", None)):
        get_ready(tmp_path, node, driver)
    apart = ReadyNode(node="l4", launched_unix_ns=NOW, offset_ns=0, uncertainty_ns=2, round_trips=7, environment=other)
    write_record(tmp_path / "nodes" / "l4" / "ready.json", apart)
    start = agree(tmp_path, ("jw2", "jw3", "jw4", "l4"), 0, drift_fails=True)
    assert start.nodes == ("jw4", "l4")
    (drift,) = start.drift
    assert (drift.fact, drift.values) == ("driver", {"535": ("jw3",), "550": ("jw2",)})


def test_drift_that_does_not_fail_stops_nobody(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked() for node in ("jw2", "jw3")})
    for node, driver in (("jw2", "550"), ("jw3", "535")):
        get_ready(tmp_path, node, driver)
    start = agree(tmp_path, ("jw2", "jw3"), 0)
    assert (start.nodes, start.drift) == (("jw2", "jw3"), ())


@pytest.mark.parametrize(
    "reported",
    [
        "",
        "{",
        "null",
        "[]",
        '{"hostname": "x"}',
        HOST.model_dump_json().replace('"cpu_count":8', '"cpu_count":-1'),
        HOST.model_dump_json().replace('"cpu_count":8', '"cpu_count":8,"other":1'),
        HOST.model_dump_json().replace('"cpu_count":8', f'"cpu_count":{10**30}'),
        HOST.model_copy(update={"cpu": "x" * 5000}).model_dump_json(),
        HOST.model_copy(update={"packages": {f"p{n}": "1" * 200 for n in range(2000)}}).model_dump_json(),
    ],
)
def test_facts_that_are_none_are_refused_in_a_sentence(reported: str) -> None:
    with pytest.raises(InputError, match=r"^The node's report on itself is .*\.$"):
        read_facts(reported)


@pytest.mark.parametrize("reported", ["", "nothing", "[]", '{"jw3": 5}', "\x00"])
def test_reasons_that_are_none_exclude_the_node(reported: str) -> None:
    with pytest.raises(Excluded, match=r"^The node's report on the other nodes' ports is invalid\.$"):
        read_unreached(reported)


def test_reasons_are_read() -> None:
    assert read_unreached('{"jw3": "connection refused"}') == {"jw3": "connection refused"}


def test_facts_are_read() -> None:
    assert read_facts(HOST.model_dump_json()) == HOST


def test_each_repeat_has_a_start_of_its_own(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked() for node in ("jw2", "jw3")})
    first, second = agree(tmp_path, ("jw2", "jw3"), 0), agree(tmp_path, ("jw2",), 0, repeat=2)
    kept = [json.loads((tmp_path / name).read_text())["nodes"] for name in ("start.json", "repeat2_start.json")]
    assert kept == [list(first.nodes), list(second.nodes)] == [["jw2", "jw3"], ["jw2"]]


def test_the_nodes_limits_have_room_for_further_repeats() -> None:
    nodes = [asked(benchmark_repeats=3, benchmark_timeout_s=timeout_s) for timeout_s in (100, 400)]
    assert repeats_s(nodes) >= 2 * 400
    assert repeats_s([asked(), asked()]) == 0
    judged_only = asked(profile={"accuracy": "only"}, benchmark_repeats=3)
    assert repeats_s([judged_only]) == 0, "answers are judged once"


def test_the_nodes_limits_have_room_for_the_turns_of_all() -> None:
    alone: dict[str, Any] = {"benchmark_solo_first": True, "benchmark_timeout_s": 100}
    nodes = [asked(**alone), asked(**alone), asked(**alone)]
    assert turns_s(nodes) == 300
    assert turns_s(nodes[:1]) == 0, "one node is alone anyway"
    assert turns_s([asked(), asked()]) == 0


def test_a_nodes_limit_has_room_for_all_that_it_waits_for() -> None:
    quick: dict[str, Any] = {"benchmark_timeout_s": 60}
    slow: dict[str, Any] = {"benchmark_timeout_s": 100, "benchmark_sync_timeout_s": 3600}
    nodes = [asked(**quick), asked(**slow)]
    patience = patience_s(nodes)
    assert patience is not None
    assert patience > 3600
    assert limit_on_node_s(nodes[0], nodes) == 60 + patience
    assert limit_on_node_s(nodes[0], nodes[:1]) is None, "it waits for nobody"
    apart = [asked(**quick, benchmark_sync_start=False), asked(**slow, benchmark_sync_start=False)]
    assert limit_on_node_s(apart[0], apart) is None
    judged_only = asked(profile={"accuracy": "only"})
    assert limit_on_node_s(judged_only, [*nodes, judged_only]) is None
    again = [asked(**one, benchmark_repeats=2, benchmark_solo_first=True) for one in (quick, slow)]
    limit = limit_on_node_s(again[0], again)
    assert limit == 60 + patience + turns_s(again) + repeats_s(again)
