"""What other programs get: read back by their own parsers."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from benchmark.cli import main
from benchmark.cluster.aggregate import gather
from benchmark.cluster.export import prometheus
from benchmark.cluster.export.tables import FOR_PEOPLE
from benchmark.cluster.render.node_table import HEADS
from benchmark.files import write_record
from benchmark.records import Energy, Failure
from benchmark.text.columns import clean
from tests.unit.building import (
    HOST,
    RUN_ID,
    add_node,
    asked,
    closed_loop,
    make_run,
    often,
    result_of,
    write_node,
)
from tests.unit.cluster.diagnosis.nodes import watched
from tests.unit.cluster.render.test_job_summary import cells

HOSTILE = 'a "GPU"\\ {x="1"}'


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """jw2 and jw3 are complete, jw4 failed."""
    run = make_run(tmp_path / RUN_ID, {node: asked(20) for node in ("jw2", "jw3", "jw4")})
    seen = HOST.model_copy(update={"gpus": (HOST.gpus[0].model_copy(update={"name": HOSTILE}),)})
    used = watched(energy=Energy(joules=512, window_s=36, tokens_per_joule=2.5, joules_per_query=25.6))
    add_node(run, "jw2", asked(20), [1800.0] * 20, environment=seen, telemetry=used)
    add_node(run, "jw3", asked(20), [2400.0] * 20, environment=seen)
    reported = Failure(node="jw4", stage="preflight", reason="=1+1 | <b>")
    write_record(run / "nodes" / "jw4" / "failure.json", reported)
    return run


def export(run_dir: Path, form: str, *words: str) -> bytes:
    target = run_dir.parent / "out"
    assert main(["export", str(run_dir), "--format", form, "-o", str(target), *words]) == 0
    return target.read_bytes()


def test_prometheus_reads_every_value_under_a_name_with_its_unit(run_dir: Path) -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(export(run_dir, "prometheus").decode())
    }
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    row = gather(run_dir).result.nodes[0]
    assert row.metrics is not None
    assert row.metrics.latency_ms is not None

    def value(name: str, **labels: str) -> float:
        found = [s.value for s in families[f"llm_benchmark_{name}"].samples if labels.items() <= s.labels.items()]
        assert len(found) == 1, (name, labels)
        return float(found[0])

    assert value("queries_per_second", node="jw2") == row.metrics.qps
    assert value("latency_seconds", node="jw2", statistic="p99") == row.metrics.latency_ms.p99 / 1000
    assert value("output_tokens_per_joule", node="jw2") == 2.5
    assert value("queries", node="jw2", state="completed") == 20
    assert value("node_counted", node="jw4") == 0
    assert value("run_info", node="jw4", run_id=RUN_ID) == 1
    assert value("slow_node_change_ratio", node="jw3") == pytest.approx(-0.25, abs=1e-3)
    # What is undefined is absent, never zero, and what a node calls itself stays a label's value.
    assert [s.labels["node"] for s in families["llm_benchmark_energy_joules"].samples] == ["jw2"]
    assert families["llm_benchmark_gpus"].samples[0].labels["hardware"] == HOSTILE


@given(st.text(max_size=40))
def test_any_label_is_read_back(text: str) -> None:
    line = "".join(prometheus._metric("x", "meaning", [({"label": text}, 1.5)]))
    (family,) = text_string_to_metric_families(line)
    (sample,) = family.samples
    assert (sample.value, sample.labels["label"]) == (1.5, clean(text))


def test_nodes_as_csv_are_the_run_directory_s_own_table(run_dir: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(export(run_dir, "csv").decode())))
    assert [row["node"] for row in rows] == ["jw2", "jw3", "jw4"]
    assert tuple(rows[0]) == HEADS


def test_samples_as_csv(run_dir: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(export(run_dir, "csv", "--what", "samples").decode())))
    assert len(rows) == 40
    assert (rows[0]["run_id"], rows[0]["node"], rows[0]["prompt_id"]) == (RUN_ID, "jw2", "prompt-0")
    assert float(rows[0]["latency_ms"]) == 1800
    assert rows[0]["error"] == ""
    assert "token_ids" not in rows[0]


@pytest.mark.parametrize(("what", "count"), [("nodes", 3), ("samples", 40)])
def test_parquet_has_typed_columns(run_dir: Path, what: str, count: int) -> None:
    table = pq.read_table(io.BytesIO(export(run_dir, "parquet", "--what", what)))
    assert table.num_rows == count
    kinds = {field.name: str(field.type) for field in table.schema}
    if what == "nodes":
        assert (kinds["qps"], kinds["counted"], kinds["node"], kinds["gpus"]) == ("double", "bool", "string", "int64")
        assert table["qps"].to_pylist()[2] is None
    else:
        assert (kinds["issued_ns"], kinds["latency_ms"], kinds["error"]) == ("int64", "double", "string")


def test_parquet_without_pyarrow_says_what_to_do(run_dir: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; from benchmark.cli import main; "
        f"sys.exit(main(['export', {str(run_dir)!r}, '--format', 'parquet', '-o', {str(run_dir / 'x')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "Parquet needs the package pyarrow" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run_dir / "x").exists()


def test_markdown_is_one_table(run_dir: Path) -> None:
    rows = cells(export(run_dir, "markdown").decode())
    # What no node has is left out: a reader looks at this one.
    assert rows[0] == [head for head in HEADS if head in rows[0]]
    assert {"qps", "joules"} <= set(rows[0])
    assert "repeats_qps_cv" not in rows[0]
    assert [row[0] for row in rows[1:]] == ["jw2", "jw3", "jw4"]
    assert len(rows[0]) <= len(FOR_PEOPLE)
    assert rows[3][-1] == "preflight: =1+1 | <b>"


@pytest.fixture
def often_dir(tmp_path: Path) -> Path:
    """jw2 and jw3 measured alone first, and then three times; jw3 is not stable. jw4 was not measured."""
    resolved = asked(5, benchmark_repeats=3, benchmark_solo_first=True)
    run = make_run(tmp_path / RUN_ID, dict.fromkeys(("jw2", "jw3", "jw4"), resolved))
    for node, each_ms in (("jw2", (1000, 1010, 990)), ("jw3", (1000, 1500, 500))):
        first, *later = (closed_loop([latency_ms] * 5) for latency_ms in each_ms)
        alone = closed_loop([800] * 5)
        write_node(run, often(result_of(node, resolved, first), later, alone), first, later, alone)
    return run


def test_repeats_and_turns_alone_are_columns(often_dir: Path) -> None:
    jw2, jw3, jw4 = csv.DictReader(io.StringIO(export(often_dir, "csv").decode()))
    assert (jw2["repeats"], jw2["repeat"], jw4["repeats"]) == ("3", "1", "")
    row = gather(often_dir).result.nodes[1]
    for one in row.spread:
        reported = {name: jw3[f"repeats_{one.metric.replace('.', '_')}_{name}"] for name in ("median", "lowest", "cv")}
        assert {name: float(value) for name, value in reported.items()} == {n: getattr(one, n) for n in reported}
    assert (jw2["repeats_qps_stable"], jw3["repeats_qps_stable"], jw4["repeats_qps_stable"]) == ("true", "false", "")
    assert float(jw3["repeats_latency_ms_p50_highest"]) == 1500
    assert float(jw2["solo_latency_ms_p99_alone"]) == 800
    assert float(jw2["solo_latency_ms_p99_together"]) == 1000
    assert float(jw2["solo_latency_ms_p99_change"]) == pytest.approx(0.25)
    heads, *rows = cells(export(often_dir, "markdown").decode())
    assert rows[1][heads.index("repeats_qps_stable")] == "false"
    table = pq.read_table(io.BytesIO(export(often_dir, "parquet")))
    assert table["repeats_qps_stable"].to_pylist() == [True, False, None]
    assert table["solo_qps_change"].to_pylist()[1] == {one.metric: one.change for one in row.solo}["qps"]


def test_prometheus_has_repeats_and_turns_alone(often_dir: Path) -> None:
    families = {f.name: f for f in text_string_to_metric_families(export(often_dir, "prometheus").decode())}

    def values(name: str, **labels: str) -> list[float]:
        samples = families[f"llm_benchmark_{name}"].samples
        return [float(s.value) for s in samples if labels.items() <= s.labels.items()]

    row = gather(often_dir).result.nodes[1]
    qps = next(one for one in row.spread if one.metric == "qps")
    assert (values("repeats", node="jw3"), values("repeat", node="jw3")) == ([3], [1])
    assert values("repeats_queries_per_second", node="jw3", over="lowest") == [qps.lowest]
    assert values("repeats_latency_seconds", node="jw3", over="highest", statistic="p50") == [1.5]
    assert values("repeats_variation_ratio", node="jw3", metric="qps") == [qps.cv]
    assert values("repeats_stable", metric="qps") == [1, 0]
    assert values("alone_latency_seconds", node="jw2", statistic="p99") == [0.8]
    assert values("together_change_ratio", node="jw2", metric="latency_ms.p99") == [pytest.approx(0.25)]


def test_standard_output_and_what_cannot_be(
    run_dir: Path, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    assert main(["export", RUN_ID, "--results-dir", str(tmp_path), "--format", "csv"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"run_id,node,")
    assert main(["export", str(run_dir), "--format", "prometheus", "--what", "samples"]) == 2
    assert main(["export", "nowhere", "--format", "csv"]) == 2
    assert main(["export", str(run_dir), "--format", "csv", "-o", str(run_dir / "run.json" / "x")]) == 2
