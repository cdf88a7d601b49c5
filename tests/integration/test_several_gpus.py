"""What several GPUs are measured with runs the real playbook on this machine; here an engine that waits has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.playbook import Playbook
from tests.integration.conftest import DATA, make_model_directory
from tests.integration.faults.left_over import assert_nothing_runs


@pytest.mark.timeout(300)
def test_two_nodes_of_this_machine_are_rows(tmp_path: Path) -> None:
    make_model_directory(tmp_path / "model")
    playbook = Playbook(tmp_path / "work", str(tmp_path / "model"), "cpu", "float32", 240, tmp_path / "kept")
    playbook.place.mkdir()
    slower = {"ttft_ms": 20, "tpot_ms": 20}
    nodes: dict[str, dict[str, Any]] = {
        "one": {"gpus": ["0"]},
        "two": {"gpus": ["1"], "benchmark_engine_options": slower},
    }
    ran = playbook.run("pair", nodes, benchmark_profile=str(DATA / "fast.yaml"))
    assert ran.code == 0, ran.words
    for node in nodes:
        row = ran.row(node)
        assert (row["queries"], row["failed"]) == (8, 0)
        assert row["tokens/s"] == pytest.approx(8 * row["QPS"])
    assert ran.result("two").resolved.profile.engine_options == slower
    kept = {path.name for path in (tmp_path / "kept" / "pair").iterdir()}
    assert kept == {"pair.txt", "benchmark_summary.txt", "report.html", "one-benchmark.log", "two-benchmark.log"}
    assert {node.node for node in ran.cluster.nodes} == {"one", "two"}
    assert_nothing_runs(tmp_path)
