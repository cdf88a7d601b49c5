"""What changed in the probes of two runs: also where no query was asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.show import render_markdown, render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.records import Comparison
from benchmark.records.probes import HardwareProbes
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import add_node, asked, make_run, probes
from tests.unit.probed_runs import store


def compared(directory: Path, before: dict[str, HardwareProbes], after: dict[str, HardwareProbes]) -> Comparison:
    return compare(load_side(store(directory, 1, before)), load_side(store(directory, 2, after)))


def outcomes(comparison: Comparison) -> dict[str, str]:
    return {change.metric: change.outcome for change in comparison.groups[0].changes if change.before is not None}


def test_a_node_that_fell_by_a_tenth_is_worse(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(2)}, {"gpu1": probes(2, pace=0.9)})
    assert (found.outcome, found.groups[0].label) == ("worse", "hardware v1, 2 x NVIDIA H200")
    assert outcomes(found)["probe.device_memory_read"] == "worse"
    read = found.groups[0].changes[[c.metric for c in found.groups[0].changes].index("probe.device_memory_read")]
    assert read.unit == "GB/s"
    assert read.change == pytest.approx(-0.1)
    # What only says something of the others, and what the host disturbs.
    assert outcomes(found)["probe.sustained_clock"] == "not judged"
    assert outcomes(found)["probe.kernel_launch"] == "within noise"
    assert not [metric for metric in outcomes(found) if not metric.startswith("probe.")]


def test_two_percent_of_one_run_are_noise(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(1)}, {"gpu1": probes(1, pace=0.98)})
    assert found.outcome == "within noise"


def test_faster_is_better_and_a_longer_launch_worse(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(1, pace=0.3)}, {"gpu1": probes(1)})
    assert {outcomes(found)[f"probe.{name}"] for name in ("matrix_bfloat16", "kernel_launch")} == {"better"}
    again = compared(tmp_path / "back", {"gpu1": probes(1)}, {"gpu1": probes(1, pace=0.3)})
    assert outcomes(again)["probe.kernel_launch"] == "worse"


def test_one_gpu_of_eight_is_named_where_the_median_hides_it(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(8)}, {"gpu1": probes(8, slow=5)})
    (one,) = found.groups[0].each
    assert (one.node, one.gpu, one.metric, one.outcome) == ("gpu1", 5, "probe.device_memory_read", "worse")
    assert outcomes(found)["probe.device_memory_read"] == "no difference"
    text = render_text(found)
    assert "gpu1 GPU 5: device memory read GB/s -20.0%" in text
    assert "WORSE: gpu1 GPU 5 alone." in text
    assert max(map(columns, text.splitlines())) <= WIDTH
    assert "gpu1 GPU 5: device memory read GB/s -20.0%" in render_markdown(found)


def test_one_node_of_ten_is_named_once_and_not_each_gpu(tmp_path: Path) -> None:
    names = [f"gpu{number}" for number in range(10)]
    found = compared(
        tmp_path, dict.fromkeys(names, probes(8)), {**dict.fromkeys(names, probes(8)), "gpu3": probes(8, pace=0.8)}
    )
    alone = [(one.node, one.gpu) for one in found.groups[0].each if one.metric == "probe.device_memory_read"]
    assert alone == [("gpu3", None)]


def test_a_figure_that_came_to_be_missing_is_undefined(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(2)}, {"gpu1": probes(2, between_gpus={}, notes=("it failed",))})
    (change,) = (one for one in found.groups[0].changes if one.metric == "probe.all_reduce")
    assert (change.before, change.after, change.note) == (470, None, "undefined")


def test_other_hardware_is_shown_by_its_probes(tmp_path: Path) -> None:
    found = compared(tmp_path, {"gpu1": probes(1)}, {"gpu1": probes(2)})
    assert "1 x NVIDIA H200: device memory read 4100 GB/s, kernel launch 2.00 us" in found.apart[0]
    assert "QPS" not in found.apart[0]


def test_a_run_with_queries_is_held_against_one_without_probes(tmp_path: Path) -> None:
    sides = []
    for day, found in ((1, None), (2, probes(1)), (3, probes(1, pace=0.8))):
        directory = make_run(tmp_path / f"run{day}", {"gpu1": asked(20)})
        add_node(directory, "gpu1", asked(20), [1800.0] * 20, probes=found)
        sides.append(load_side(directory))
    assert not [metric for metric in outcomes(compare(sides[0], sides[1])) if metric.startswith("probe.")]
    assert outcomes(compare(sides[1], sides[2]))["probe.device_memory_read"] == "worse"
    assert outcomes(compare(sides[1], sides[2]))["qps"] == "no difference"


def test_a_hardware_run_is_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = store(tmp_path, 1, {"gpu1": probes(2)}), store(tmp_path, 2, {"gpu1": probes(2, pace=0.8)})
    assert main(["baseline", "set", str(before)]) == 0
    assert "for hardware v1, 2 x NVIDIA H200" in capsys.readouterr().out
    assert main(["compare", str(after)]) == 1
    assert "device memory read GB/s" in capsys.readouterr().out
    assert main(["aggregate", str(after)]) == 0
    assert "WORSE: device memory read GB/s -20.0%" in (after / "benchmark_summary.md").read_text()
    verdict = json.loads((after / "verdict.json").read_text())
    assert verdict["against_baseline"]["outcome"] == "worse"
    fell = next(one for one in verdict["against_baseline"]["changes"] if one["metric"] == "probe.matrix_bfloat16")
    assert (fell["unit"], fell["outcome"]) == ("TFLOP/s", "worse")
    figures = {one["metric"]: one for one in verdict["figures"][0]["probes"]}
    assert (figures["probe.peer_copy"]["worst_gpu"], figures["probe.peer_copy"]["worst_peer"]) == (0, 1)
    assert figures["probe.sustained_clock"]["worst"] is None
