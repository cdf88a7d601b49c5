"""The probes of a node over stored runs."""

from __future__ import annotations

from pathlib import Path

from benchmark.cluster.history import node_history
from benchmark.cluster.history.show import render_history
from benchmark.cluster.stored.index import stored_runs
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import probes
from tests.unit.probed_runs import store


def test_a_probe_that_fell_is_a_shift_at_its_first_run(tmp_path: Path) -> None:
    for day in range(1, 5):
        store(tmp_path, day, {"gpu1": probes(2), "gpu2": probes(2)})
    for day in range(5, 8):
        store(tmp_path, day, {"gpu1": probes(2, pace=0.9), "gpu2": probes(2)})
    first, second = node_history(tmp_path).nodes
    assert (first.label, first.units["probe.peer_copy"]) == ("hardware v1, NVIDIA H200", "GB/s")
    assert [point.values["probe.device_memory_read"] for point in first.points] == [4100] * 4 + [3690] * 3
    assert "probe.sustained_clock" not in first.units
    shift = next(one for one in first.shifts if one.metric == "probe.device_memory_read")
    assert (shift.run_id, shift.worse, shift.tentative) == ("20261105T100000Z-0123abcd", True, False)
    assert not second.shifts
    text = render_history(node_history(tmp_path, "gpu1"))
    assert "device memory read -10%, 4100 to 3690 GB/s: worse" in text
    assert "  device memory read GB/s\n                   4100   4100" in text
    assert max(map(columns, text.splitlines())) <= WIDTH


def test_a_longer_launch_is_worse(tmp_path: Path) -> None:
    for day in range(1, 9):
        store(tmp_path, day, {"gpu1": probes(1, pace=1 if day < 5 else 0.5)})
    (node,) = node_history(tmp_path).nodes
    shift = next(one for one in node.shifts if one.metric == "probe.kernel_launch")
    assert shift.worse
    assert shift.after > shift.before


def test_runs_that_failed_are_counted_as_elsewhere(tmp_path: Path) -> None:
    store(tmp_path, 1, {"gpu1": probes(1)})
    store(tmp_path, 2, {"gpu1": None})
    history = node_history(tmp_path)
    assert (history.runs[0].failed, history.runs[0].failed_in) == (1, {"probes": 1})
    assert len(history.nodes[0].points) == 1
    assert "in probes" in render_history(history)


def test_the_kind_of_a_hardware_run_names_no_model(tmp_path: Path) -> None:
    store(tmp_path, 1, {"gpu1": probes(1)}, benchmark_model="/models/one")
    store(tmp_path, 2, {"gpu1": probes(1)}, benchmark_model="/models/other", benchmark_probe_floors={"cpu_one_core": 1})
    kinds = {one.kind for run in stored_runs(tmp_path) if (one := run.node("gpu1"))}
    assert len(kinds) == 1
    assert kinds.pop()[:4] == ("hardware", "none", "none", "none")
    assert len(node_history(tmp_path).nodes) == 1
