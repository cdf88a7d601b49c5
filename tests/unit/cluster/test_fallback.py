"""A node on which another engine answered than the profile's: it is said, and never held against the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.baseline import key_of
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.stored.read import read_stored
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.records import Accuracy, EngineInfo
from benchmark.rundir import RESULT_FILE, read_run
from tests.unit.building import add_node, asked, make_run

QUICK = asked(5, {"accuracy": "with-performance"})
FAST, SLOW = [390.0, 391, 392, 393, 394], [2900.0, 2950, 2960, 2980, 2990]
SEQUENTIAL = EngineInfo(name="sequential", details={"instead_of": "continuous", "because": "It has no attention."})
SAID = "sequential answered instead of continuous: It has no attention."


def make(directory: Path, nodes: dict[str, EngineInfo | None], **settings: Any) -> Path:
    """A run whose nodes give other tokens where another engine answers, and are six times slower."""
    make_run(directory, dict.fromkeys(nodes, QUICK))
    for node, engine in nodes.items():
        tokens = (1, 2, 3) if engine else (4, 5, 6)
        changes: dict[str, Any] = {"accuracy": Accuracy(greedy={"p": tokens}), **({"engine": engine} if engine else {})}
        add_node(directory, node, QUICK, SLOW if engine else FAST, **changes)
    return directory


def test_it_is_said_and_grouped_apart(tmp_path: Path) -> None:
    make(tmp_path, {"jw2": None, "jw3": None, "jw4": None, "jw5": SEQUENTIAL, "jw6": SEQUENTIAL})
    result = aggregate(tmp_path)
    assert result.counted == 5
    assert {group.key["engine"]: group.nodes for group in result.groups} == {
        "continuous": ("jw2", "jw3", "jw4"),
        "sequential": ("jw5", "jw6"),
    }
    # Six times slower than nodes that are not its peers, and with other tokens.
    assert result.findings == ()
    assert [agreement.disagreements for agreement in result.agreements] == [(), ()]
    assert {row.node: row.fallback for row in result.nodes} == {
        "jw2": "", "jw3": "", "jw4": "", "jw5": SAID, "jw6": SAID,
    }  # fmt: skip
    text = " ".join(render_cluster(result, read_run(tmp_path)).split())
    assert f"Engine jw5, jw6: {SAID}" in text
    series = "".join(prometheus_lines([whole(read_run(tmp_path), result)]))
    lines = [line for line in series.splitlines() if line.startswith("llm_benchmark_queries_per_second{")]
    assert {('node="jw5"' in line or 'node="jw6"' in line) == ('engine="sequential"' in line) for line in lines} == {
        True
    }


def test_a_run_by_one_engine_is_no_history_of_the_other(tmp_path: Path) -> None:
    for run, engine in (("a", None), ("b", SEQUENTIAL), ("c", SEQUENTIAL)):
        make(tmp_path / run, {"jw2": engine})
        write_record(tmp_path / run / RESULT_FILE, aggregate(tmp_path / run))
    sides = {run: load_side(tmp_path / run) for run in "abc"}
    assert compare(sides["a"], sides["b"]).groups == ()
    assert compare(sides["b"], sides["c"]).groups
    baselines = {run: {key_of(like) for like in side.groups} for run, side in sides.items()}
    assert baselines["a"] != baselines["b"] == baselines["c"]
    stored = {run: read_stored(tmp_path, run) for run in "abc"}
    assert stored["a"]["groups"] != stored["b"]["groups"] == stored["c"]["groups"]
    assert [kinds[3] for run in "ab" for kinds in stored[run]["kinds"]] == ["continuous", "sequential"]


def test_only_the_profiles_own_fallback_is_believed(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": QUICK, "jw3": QUICK})
    add_node(tmp_path, "jw2", QUICK, FAST)
    add_node(tmp_path, "jw3", QUICK, FAST, engine=EngineInfo(name="simulated"))
    (refused,) = (row for row in aggregate(tmp_path).nodes if row.node == "jw3")
    assert "the engine simulated answered instead of continuous" in refused.reason
    with pytest.raises(InputError, match="none of its nodes is counted"):
        load_side(tmp_path, "jw3")
