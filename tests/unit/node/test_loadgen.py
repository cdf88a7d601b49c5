"""MLCommons' own LoadGen, driving an engine whose delays are known: its figures are the result's."""

import re
from pathlib import Path

import pytest

from benchmark.columns import Columns
from benchmark.files import read_samples
from benchmark.metrics import compute
from benchmark.profiles import load_profile
from benchmark.text.figures import figure
from benchmark.text.node_result import render_node
from tests.unit.node.loadgen_runs import LABELS, SHORT, measure

TIMES = {
    "latency_ms": ("result_{}_percentile_latency_ns", "result_{}_latency_ns"),
    "ttft_ms": ("result_first_token_{}_percentile_latency_ns", "result_first_token_{}_latency_ns"),
    "tpot_ms": ("result_time_per_output_token_{}_percentile_ns", "result_time_to_output_token_{}"),
}


@pytest.mark.parametrize("scenario", LABELS)
def test_the_result_says_what_loadgen_says_to_the_last_digit(tmp_path: Path, scenario: str) -> None:
    result = measure(tmp_path, {"scenario_options": {"scenario": scenario, **SHORT}})
    loadgen = result.loadgen
    assert loadgen is not None
    reported, printed = loadgen.summary, (tmp_path / "mlperf_log_summary.txt").read_text()
    for label, key in LABELS[scenario].items():
        assert re.search(rf"^{re.escape(label)}\s*: {re.escape(reported[label])}$", printed, re.M), label
        # The detailed log's six digits and the summary's are rounded apart.
        unit = 10.0 ** -len(reported[label].partition(".")[2])
        assert float(str(loadgen.results[key])) == pytest.approx(float(reported[label]), abs=0.51 * unit, rel=1e-5), (
            label
        )
    assert loadgen.valid is (reported["Result is"] == "VALID")
    assert loadgen.constraints["early stopping satisfied" if scenario != "Offline" else "min queries satisfied"] is (
        reported["Early stopping satisfied" if scenario != "Offline" else "Min queries satisfied"] == "Yes"
    )
    assert result.verdict is not None
    assert result.verdict.valid is loadgen.valid
    metrics = result.metrics
    assert metrics is not None
    assert metrics.qps == loadgen.results[next(iter(LABELS[scenario].values()))]
    assert metrics.queries.planned == metrics.queries.completed >= 40
    assert result.warmup == 1


def test_times_from_the_scheduled_time_are_loadgens(tmp_path: Path) -> None:
    result = measure(tmp_path)
    samples = read_samples(tmp_path / "samples.jsonl")
    assert result.loadgen is not None
    assert result.metrics is not None
    assert result.metrics.latency_ms is not None
    assert all(sample.scheduled_ns is not None for sample in samples)
    theirs_ns = sorted(s.reported_ns - s.scheduled_ns for s in samples if s.reported_ns and s.scheduled_ns is not None)
    # The same percentile of the same queries; two readings of a clock lie between, on a machine that does other work.
    assert theirs_ns[len(theirs_ns) // 2] / 1e6 == pytest.approx(
        float(str(result.loadgen.results["result_50.00_percentile_latency_ns"])) / 1e6, abs=2
    )
    assert [sample.index for sample in sorted(samples, key=lambda s: s.index)] == list(range(len(samples)))


@pytest.mark.parametrize(
    ("scenario", "reported"),
    [("Server", list(TIMES)), ("SingleStream", list(TIMES)), ("Offline", ["latency_ms"])],
)
def test_the_times_shown_are_loadgens_where_it_reports_them(tmp_path: Path, scenario: str, reported: list[str]) -> None:
    result = measure(tmp_path, {"scenario_options": {"scenario": scenario, **SHORT}})
    metrics, loadgen = result.metrics, result.loadgen
    assert metrics is not None
    assert loadgen is not None
    assert metrics.times_of == "LoadGen"
    for name in reported:
        percentile, other = TIMES[name]
        keys = {f"p{rank}": percentile.format(f"{rank}.00") for rank in (50, 90, 95, 99)}
        keys |= {part: other.format(part) for part in ("mean", "min", "max")}
        for part, key in keys.items():
            assert getattr(getattr(metrics, name), part) == float(str(loadgen.results[key])) / 1e6, (name, part)
    # In Offline LoadGen tells nothing of first tokens: those that are shown are the samples'.
    samples = Columns.of(read_samples(tmp_path / "samples.jsonl"))
    own = compute(samples, metrics.queries.planned, loadgen, 0, "samples")
    assert own.times_of == "samples"
    for name in set(TIMES) - set(reported):
        assert getattr(metrics, name) == getattr(own, name)
    assert metrics.latency_ms is not None
    (line,) = (line for line in render_node(result).splitlines() if line.startswith("latency  "))
    assert figure(metrics.latency_ms.p90) in line.split()


def test_the_delay_of_reporting_the_first_token_is_limited(tmp_path: Path) -> None:
    result = measure(tmp_path, {"limits": [{"metric": "first_report_delay_ms.p99", "at_most": 0}]})
    samples = read_samples(tmp_path / "samples.jsonl")
    assert all(s.first_reported_ns and s.first_token_ns and s.first_reported_ns >= s.first_token_ns for s in samples)
    metrics, verdict = result.metrics, result.verdict
    assert metrics is not None
    assert metrics.first_report_delay_ms is not None
    assert metrics.first_report_delay_ms.count == len(samples)
    assert verdict is not None
    assert any(reason.startswith("P99 first token's report delay ") for reason in verdict.reasons)
    for name in ("mlperf-server", "mlperf-interactive", "mlperf-singlestream", "mlperf-edge-singlestream"):
        limits = {limit.metric: limit.at_most for limit in load_profile(name).limits}
        assert limits["first_report_delay_ms.p99"] == limits["report_delay_ms.p99"]
