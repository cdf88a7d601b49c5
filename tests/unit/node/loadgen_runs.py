"""Runs that LoadGen drives, with an engine whose delays are known."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmark.files import read_record
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmark.rundir import RunOrder
from benchmark.settings import ResolvedSettings

SHORT = {"min_duration_ms": 500, "min_query_count": 40}
PROFILE: dict[str, Any] = {
    "scenario": "loadgen",
    "scenario_options": {"scenario": "Server", **SHORT},
    "engine_options": {"ttft_ms": 4, "tpot_ms": 0.5},
    "samples": None,
    "warmup": 1,
    "limits": [{"metric": "queries.failed", "at_most": 0}],
}


def asked(profile: dict[str, Any] | None = None, **settings: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_target_qps": 60})
    changed = {**base.profile.model_dump(), **PROFILE, **(profile or {})}
    return ResolvedSettings.model_validate({"settings": {**base.settings.model_dump(), **settings}, "profile": changed})


def measure(directory: Path, profile: dict[str, Any] | None = None, **settings: Any) -> NodeResult:
    return run(RunRequest("r1", "jw2", asked(profile, **settings), directory))


def start(directory: Path, profile: dict[str, Any]) -> subprocess.Popen[bytes]:
    order = RunOrder(run_id="r1", node="jw2", resolved=asked(profile))
    (directory / "order.json").write_text(order.model_dump_json())
    command = [sys.executable, "-m", "benchmark", "run", "--order", str(directory / "order.json")]
    with (directory / "benchmark.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def written(directory: Path) -> NodeResult:
    (path,) = directory.glob("mlperf_datacenter_jw2_*.json")
    return read_record(path, NodeResult)


# LoadGen's label in its summary -> its key in the result, by scenario.
LABELS = {
    "Server": {
        "Completed samples per second": "result_completed_samples_per_sec",
        "Completed tokens per second": "result_completed_tokens_per_second",
        "Scheduled samples per second": "result_scheduled_samples_per_sec",
        "99.00 percentile first token latency (ns)": "result_first_token_99.00_percentile_latency_ns",
        "99.00 percentile time to output token (ns)": "result_time_per_output_token_99.00_percentile_ns",
    },
    "Offline": {
        "Samples per second": "result_samples_per_second",
        "Tokens per second": "result_tokens_per_second",
    },
    "SingleStream": {
        "QPS w/ loadgen overhead": "result_qps_with_loadgen_overhead",
        "TPS w/ loadgen overhead": "result_token_throughput_with_loadgen_overhead",
        "90.00 percentile latency (ns)": "result_90.00_percentile_latency_ns",
    },
}
