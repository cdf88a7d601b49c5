"""What a GPU's own memory and matrix rate allow at best: arithmetic, and where it is undefined."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.export.prometheus import Exported, prometheus_lines
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.roofline import roofline, roofline_words
from benchmark.records import EngineInfo, HardwareProbes, NodeRow, Roofline
from benchmark.records.probes import GpuProbes, Measured
from tests.unit.building import add_node, asked, make_run
from tests.unit.cluster.diagnosis.nodes import node

WEIGHTS = 7_504_924_672  # of Llama 3.1 8B, without the table of input embeddings


def measured(read_gb_s: float | None = 4000.0, tflop_s: float | None = 700.0, gpus: int = 1) -> HardwareProbes:
    figures = {}
    if read_gb_s is not None:
        figures["device_memory_read"] = Measured(value=read_gb_s, unit="GB/s")
    if tflop_s is not None:
        figures["matrix_float16"] = Measured(value=tflop_s, unit="TFLOP/s")
    return HardwareProbes(gpus=tuple(GpuProbes(index=index, figures=figures) for index in range(gpus)), seconds=1)


def engine(replicas: int = 1, **details: Any) -> EngineInfo:
    given = {"parameters_per_token": WEIGHTS, "dtype": "float16", **details}
    return EngineInfo(name="continuous", replicas=replicas, details=given)


def of(**changes: Any) -> LoadedNode:
    return node("n1", **{"engine": engine(), "probes": measured(), **changes})


def known(one: LoadedNode) -> Roofline:
    found = roofline(one)
    assert found is not None
    return found


@given(
    weights=st.integers(10**6, 10**12),
    read_gb_s=st.floats(10, 10_000),
    tflop_s=st.floats(1, 5_000),
    replicas=st.integers(1, 16),
)
def test_the_limits_follow_from_weights_and_probes(
    weights: int, read_gb_s: float, tflop_s: float, replicas: int
) -> None:
    one = of(engine=engine(replicas, parameters_per_token=weights), probes=measured(read_gb_s, tflop_s, replicas))
    found, metrics = known(one), one.metrics
    assert metrics is not None
    assert metrics.tpot_ms is not None
    assert metrics.tokens_per_s is not None
    # Reading all weights at the probe's rate takes the least time.
    assert found.least_tpot_ms is not None
    assert found.least_tpot_ms / 1e3 * read_gb_s * 1e9 == pytest.approx(2 * weights)
    assert found.times_least_tpot == pytest.approx(metrics.tpot_ms.p50 / found.least_tpot_ms)
    # So many output tokens a second, with their share of the prompts, take the whole matrix rate.
    assert found.most_tokens_per_s is not None
    tokens = found.most_tokens_per_s * (metrics.input_tokens + metrics.output_tokens) / metrics.output_tokens
    assert tokens * 2 * weights == pytest.approx(tflop_s * 1e12)
    # Of one GPU, however many there are.
    assert found.tokens_per_s == pytest.approx(metrics.tokens_per_s / replicas)
    assert found.share_of_most_tokens == pytest.approx(metrics.tokens_per_s / replicas / found.most_tokens_per_s)


@given(factor=st.floats(1.1, 10))
def test_faster_hardware_allows_more(factor: float) -> None:
    one, faster = known(of()), known(of(probes=measured(4000 * factor, 700 * factor)))
    assert one.least_tpot_ms is not None
    assert one.most_tokens_per_s is not None
    assert faster.least_tpot_ms == pytest.approx(one.least_tpot_ms / factor)
    assert faster.most_tokens_per_s == pytest.approx(one.most_tokens_per_s * factor)


def test_an_h200_by_hand() -> None:
    found = known(of(probes=measured(4100)))
    assert found.least_tpot_ms == pytest.approx(3.661, abs=0.001)
    assert found.alone


def test_what_is_not_known_is_undefined() -> None:
    assert roofline(of(probes=None)) is None
    assert roofline(of(probes=HardwareProbes(seconds=1))) is None
    assert roofline(of(engine=engine(parameters_per_token=None))) is None
    assert roofline(of(engine=EngineInfo(name="endpoint", details={"model": "m", "urls": []}))) is None
    assert roofline(of(engine=engine(dtype="float8"))) is None
    assert roofline(of(engine=engine(quantization="fp8"))) is None
    assert roofline(LoadedNode("n1")) is None
    one = known(of(probes=measured(tflop_s=None)))
    assert (one.most_tokens_per_s, one.share_of_most_tokens) == (None, None)
    assert one.times_least_tpot is not None
    other = known(of(probes=measured(read_gb_s=None)))
    assert (other.least_tpot_ms, other.times_least_tpot) == (None, None)


def row_of(run_dir: Path) -> tuple[NodeRow, str, str]:
    resolved = asked(4)
    make_run(run_dir, {"n1": resolved})
    own = engine().model_copy(update={"name": resolved.profile.engine})
    add_node(run_dir, "n1", resolved, [1000.0] * 4, engine=own, probes=measured())
    gathered = gather(run_dir)
    text = " ".join(render_cluster(gathered.result, gathered.run).split())
    return aggregate(run_dir).nodes[0], text, render_report(gathered, run_dir)


def test_one_query_at_a_time_is_held_against_the_memory(tmp_path: Path) -> None:
    row, text, page = row_of(tmp_path)
    assert row.roofline is not None
    assert row.roofline.alone
    assert "TPOT 15.1 ms: 4.02 x the least time that a GPU's own memory allows (3.75 ms)" in text
    assert "the least TPOT that a GPU&#39;s own memory allows" in page.split("<main>")[0]


def test_tables_and_prometheus_have_the_limits(tmp_path: Path) -> None:
    row_of(tmp_path)
    gathered = gather(tmp_path)
    (cells,) = csv.DictReader(io.StringIO(render_node_table(gathered)))
    assert float(cells["roofline_least_tpot_ms"]) == pytest.approx(3.7525, abs=0.001)
    assert float(cells["roofline_times_least_tpot"]) == pytest.approx(4.018, abs=0.01)
    lines = list(prometheus_lines([Exported(gathered.run, gathered.result, frozenset(gathered.run.nodes))]))
    (line,) = (one for one in lines if one.startswith("llm_benchmark_least_tpot_seconds{"))
    assert float(line.split()[-1]) == pytest.approx(0.0037525, abs=1e-6)


def row(**fields: Any) -> NodeRow:
    return NodeRow(
        node="n",
        status="complete",
        counted=True,
        roofline=Roofline(weights=WEIGHTS, weights_bytes=2 * WEIGHTS, **{"alone": True, **fields}),
    )


def test_many_in_flight_are_held_against_the_matrix_rate() -> None:
    # Their tokens wait for each other's by nature: eight times the least time would read like a fault.
    batch = {"alone": False, "times_least_tpot": 8.0, "least_tpot_ms": 4.0, "tpot_ms": 32.0}
    words = roofline_words([row(**batch, share_of_most_tokens=0.31, most_tokens_per_s=9000.0, tokens_per_s=2790.0)])
    assert words.startswith("31.0 % of the most tokens/s that a GPU's own matrix rate allows (9,000)")
    assert "TPOT" not in words


def test_several_nodes_give_a_range() -> None:
    rows = [row(times_least_tpot=x, least_tpot_ms=4.0, tpot_ms=4 * x) for x in (1.2, 1.3)]
    assert roofline_words(rows) == (
        "TPOT 4.80 to 5.20 ms: 1.20 to 1.30 x the least time that a GPU's own memory allows (4.00 ms)"
    )
    assert roofline_words([]) == ""
