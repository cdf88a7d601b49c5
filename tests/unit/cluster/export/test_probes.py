"""The probes for other programs, read back by their own parsers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmark.cli import main
from benchmark.cluster.export.textfile import FILE, write_textfile
from benchmark.cluster.render.node_table import HEADS
from tests.unit.building import probes
from tests.unit.cluster.export.test_export import export
from tests.unit.probed_runs import store


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """gpu1 has two GPUs, of which the second is slow; gpu2 has one, and so no peers; gpu3 failed."""
    return store(tmp_path, 1, {"gpu1": probes(2, slow=1), "gpu2": probes(1), "gpu3": None})


def test_wide_columns_have_stable_names(run_dir: Path) -> None:
    rows = {row["node"]: row for row in csv.DictReader(io.StringIO(export(run_dir, "csv").decode()))}
    assert tuple(rows["gpu1"])[: len(HEADS)] == HEADS
    assert float(rows["gpu1"]["probe_device_memory_read_gb_s"]) == pytest.approx(3690)
    assert float(rows["gpu1"]["probe_device_memory_read_gb_s_worst"]) == pytest.approx(3280)
    assert float(rows["gpu1"]["probe_peer_copy_gb_s_worst"]) == 380
    assert float(rows["gpu1"]["probe_all_reduce_gb_s"]) == 470
    assert float(rows["gpu2"]["probe_cpu_one_core_mb_s"]) == 600
    assert rows["gpu1"]["probe_wrong_products"] == "0.0"
    assert (rows["gpu2"]["probe_peer_copy_gb_s"], rows["gpu3"]["probe_cpu_one_core_mb_s"]) == ("", "")
    assert (rows["gpu1"]["qps"], rows["gpu1"]["queries_completed"]) == ("", "")
    assert "probe_cpu_one_core_mb_s_worst" not in rows["gpu1"]


def test_long_form_has_a_row_for_each_gpu_and_pair(run_dir: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(export(run_dir, "csv", "--what", "probes").decode())))
    found = {(row["node"], row["gpu"], row["to_gpu"], row["probe"]): row for row in rows}
    assert len(found) == len(rows) == 2 * 7 + 2 + 1 + 1 + 7 + 1
    slow = found["gpu1", "1", "", "device_memory_read"]
    assert (slow["unit"], slow["better"]) == ("GB/s", "higher")
    assert float(slow["value"]) == pytest.approx(3280)
    assert float(found["gpu1", "1", "0", "peer_copy"]["value"]) == 381
    assert found["gpu1", "0", "", "sustained_clock"]["better"] == ""
    assert found["gpu2", "", "", "cpu_one_core"]["unit"] == "MB/s"


@pytest.mark.parametrize(("what", "count"), [("nodes", 3), ("probes", 26)])
def test_parquet_has_typed_columns(run_dir: Path, what: str, count: int) -> None:
    table = pq.read_table(io.BytesIO(export(run_dir, "parquet", "--what", what)))
    assert table.num_rows == count
    name = "probe_device_memory_read_gb_s" if what == "nodes" else "value"
    assert str(table.schema.field(name).type) == "double"
    if what == "probes":
        assert str(table.schema.field("gpu").type) == "int64"


def test_prometheus_has_one_family_with_equal_labels(run_dir: Path) -> None:
    families = {one.name: one for one in text_string_to_metric_families(export(run_dir, "prometheus").decode())}
    samples = families["llm_benchmark_probe"].samples
    assert len({tuple(sample.labels) for sample in samples}) == 1
    found = {(s.labels["node"], s.labels["gpu"], s.labels["probe"], s.labels["unit"]): s.value for s in samples}
    assert len(found) == len(samples)
    assert found["gpu1", "1", "device_memory_read", "GB/s"] == pytest.approx(3280)
    assert found["gpu1", "0", "peer_copy_0_to_1", "GB/s"] == 380
    assert found["gpu2", "", "cpu_one_core", "MB/s"] == 600
    assert {s.labels["hardware"] for s in samples} == {"NVIDIA H200"}
    assert {s.labels["model"] for s in samples} == {"none"}
    assert [s.value for s in families["llm_benchmark_probes_seconds"].samples] == [25, 25]
    assert not {"llm_benchmark_queries", "llm_benchmark_queries_per_second"} & families.keys()


def test_the_textfile_keeps_the_newest_probes(run_dir: Path) -> None:
    results = run_dir.parent
    store(results, 2, {"gpu1": probes(2, pace=0.5)})
    write_textfile(results, results)
    written = (results / FILE).read_text()
    read = [line for line in written.splitlines() if 'probe="device_memory_read"' in line and 'node="gpu1"' in line]
    assert [line.rpartition(" ")[2] for line in read] == ["2050", "2050"]


def test_markdown_and_what_prometheus_cannot_take(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "probe\\_device\\_memory\\_read\\_gb\\_s" in export(run_dir, "markdown").decode()
    assert main(["export", str(run_dir), "--format", "prometheus", "--what", "probes"]) == 2
    assert "For Prometheus the probes are among the nodes' values" in capsys.readouterr().err
    assert main(["export", str(run_dir), "--format", "csv", "--what", "samples"]) == 0
