"""Two nodes with real vLLM as one system: one LoadGen asks both servers, with the key that was made for the run."""

from __future__ import annotations

import pytest
import yaml

from tests.integration.conftest import Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.real_vllm.conftest import result, run

pytestmark = pytest.mark.timeout(3600)
PORT = 8043
PROFILE = {
    "name": "cluster",
    "version": 1,
    "kind": "self-test",
    "scenario": "loadgen",
    "scenario_options": {"scenario": "Offline", "min_duration_ms": 1000, "min_query_count": 24},
    "engine": "vllm",
    "dataset": "curated",
    "warmup": 2,
    "generation": {"max_new_tokens": 16, "min_new_tokens": 16},
    "limits": [{"metric": "queries.failed", "at_most": 0}],
}


def test_one_loadgen_asks_two_vllm(real: Playbooks) -> None:
    path = real.directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(PROFILE))
    real.variables |= {"benchmark_profile": str(path), "benchmark_system": "cluster", "benchmark_serve_port": PORT}
    done = run(real, "benchmark")
    rows = [done.row(name) for name in ("jw2", "jw3")]
    assert [row["counted"] for row in rows] == [True, True], done.output
    queries = done.cluster["system"]["metrics"]["queries"]
    assert (queries["failed"], queries["unfinished"]) == (0, 0)
    assert sum(row["metrics"]["queries"]["completed"] for row in rows) == queries["completed"]
    assert all(row["served"]["share"] > 0 for row in rows)
    (log,) = done.run_dir.rglob("mlperf_log_detail.txt")
    assert log.parent.name == "driver"
    for name in ("jw2", "jw3"):
        details = result(done, name)["engine"]["details"]
        assert details["api_key"] is True
        assert "--api-key" not in details["start"]
    assert_nothing_runs(real.directory)
