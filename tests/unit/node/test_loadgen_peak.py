"""The peak search, in runs that LoadGen drives."""

import json
from pathlib import Path

import pytest

from benchmark.errors import RunError
from tests.unit.node.loadgen_runs import SHORT, measure


def test_the_peak_search_finds_what_the_engine_can_do(tmp_path: Path) -> None:
    # Two at a time for 40 ms each: 50 queries/s. A queue that grows soon breaks a limit of 150 ms.
    result = measure(
        tmp_path,
        {
            "engine_options": {"ttft_ms": 32.5, "tpot_ms": 0.5, "slots": 2},
            "scenario_options": {
                "scenario": "Server",
                **SHORT,
                "ttft_latency_ms": 150,
                "probe_duration_ms": 500,
                "burst_query_count": 50,
            },
        },
        benchmark_target_qps="auto",
    )
    peak = result.peak
    assert peak is not None
    assert peak.probes
    assert result.target_qps == peak.target_qps
    valid = [probe.target_qps for probe in peak.probes if probe.valid]
    invalid = [probe for probe in peak.probes if not probe.valid]
    assert peak.target_qps == max(valid)
    assert all(probe.reasons for probe in invalid)
    assert peak.settled is (min(probe.target_qps for probe in invalid) <= max(valid) * 1.05)
    assert peak.host_vars == f"benchmark_target_qps: {peak.target_qps:.4g}"
    assert len(list(tmp_path.glob("probe*_mlperf_log_summary.txt"))) == len(peak.probes)
    assert json.loads((tmp_path / "progress.json").read_text())["state"] == "complete"


def test_a_burst_in_which_every_query_fails_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="The search's first burst of queries failed: The simulated engine is set"):
        measure(
            tmp_path,
            {"warmup": 0, "engine_options": {"fail_indexes": list(range(300))}},
            benchmark_target_qps="auto",
        )
