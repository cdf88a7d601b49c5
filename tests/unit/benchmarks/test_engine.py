"""benchmarks/engine.py on a tiny shape, on the CPU; its arithmetic by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmark.continuous_options import Options
from benchmarks import bench, engine, workloads
from benchmarks.floor import Floor
from benchmarks.workloads import Measured

TINY = ["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--queries-alone", "2"]


def test_all_parts_run_and_each_failure_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.json"
    words = [*TINY, "--queries-a", "4", "--queries-b", "4", "--attentions", "magic,paged_flash,sdpa"]
    words += [
        "--parts",
        "floor,magic,check,sequential,alone,static,continuous,split,harness,server,load",
        "--starts",
        "continuous",
        "--probe-s",
        "0.5",
        "--probes",
        "1",
    ]
    assert engine.main([*words, "--json", str(path)]) == 0
    table = json.loads(path.read_text())
    # A probe of the server may find its only rate too much on a busy machine; it is a row all the same.
    measured = [
        (row["workload"], row["engine"], row["attention"])
        for row in table["rows"]
        if "tokens/s" in row or "probes" in row
    ]
    assert measured == [
        ("A", "sequential", "sdpa"),
        ("A", "bare generate", "sdpa"),
        ("A", "one by one", "eager"),
        ("A", "one batch", "sdpa"),
        ("A", "continuous", "eager"),
        ("B", "continuous", "sdpa"),
        ("B", "Server", "paged|eager"),
        ("B", "Server", "paged|eager"),
    ]
    assert all(row["tokens/s"] > 0 for row in table["rows"] if "tokens/s" in row)
    assert [len(row["probes"]) for row in table["rows"] if "probes" in row] == [1, 1]
    assert all(row["details"]["block_sharing"] is False for row in table["rows"] if row.get("graphs") is not None)
    notes = {row["attention"]: row["note"] for row in table["rows"] if row["note"] and "probes" not in row}
    assert "engine_options of the continuous engine: attention" in notes["magic"]
    assert notes["paged_flash"] == "not here: it needs a GPU"
    checks = [value["cross_check"] for name, value in table.items() if name.startswith("check")]
    assert [check["same"] == check["tokens"] for check in checks] == [True, True]
    assert len(table["harness"]["through_loadgen"]) == len(table["harness"]["bare"]) == 2
    for name in ("split A", "split B"):
        assert table[name]["steps"] > 0
        assert table[name]["cpu_s"].keys() == {"scheduling", "starting", "adapter", "updating"}
        assert sum(table[name]["cpu_s"].values()) <= table[name]["wall_s"]
    loaded = {name: value for name, value in table.items() if name.startswith("load ")}
    assert len(loaded) == 10
    for name, taken in loaded.items():
        assert ("weights_from_disk" in taken) == ("reader" in name)
        assert sum(value for stage, value in taken.items() if stage != "load_s") <= taken["load_s"] + 0.01
    started = table["start of continuous"]
    assert started["age_s"] > sum(
        value for name, value in started.items() if name not in ("age_s", "since_process_start")
    )
    assert table["copy_gb_s"] > 0
    assert table["least_tpot_ms"] > 0
    printed = capsys.readouterr().out
    assert "magic: AttributeError" in printed
    assert "tokens/s" in printed


def test_without_time_left_every_row_says_so(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert (
        engine.main([*TINY, "--budget-s", "0", "--parts", "continuous", "--attentions", "sdpa", "--json", str(path)])
        == 0
    )
    assert [row["note"] for row in json.loads(path.read_text())["rows"]] == ["time limit reached"] * 2


@pytest.mark.parametrize("changed", [changed for variants in bench.VARIANTS.values() for changed in variants])
def test_a_variant_changes_what_its_row_says(changed: dict[str, Any]) -> None:
    assert Options(**changed).model_dump(exclude_unset=True) == changed
    assert changed.keys() <= {*bench.NOTED, "use_cuda_graph", "use_async_batching"}


def test_the_floor_of_llama_8b_on_an_h100() -> None:
    floor = Floor(copy_gb_s=3000, matmul_tflop_s=750, weight_bytes=15_000_000_000, weights=7_500_000_000)
    assert floor.tpot_ms == pytest.approx(5.0)
    assert floor.tokens_per_s(0, 128) == pytest.approx(50_000)
    assert floor.tokens_per_s(768, 128) == pytest.approx(50_000 / 7)


def test_workload_b_is_as_long_as_news_articles() -> None:
    work = workloads.summaries(2000, 128256)
    assert statistics.fmean(work.lengths) == pytest.approx(780, rel=0.05)
    assert 2000 < max(work.lengths) <= 2500
    assert [len(query.prompt.token_ids or ()) for query in work.queries()[:9]] == list(work.lengths[:9])
    assert work.queries()[0].prompt != work.warm_up(1)[0].prompt


def test_rates_count_completed_queries_from_the_first_issue() -> None:
    second = 1_000_000_000
    measured = Measured(
        issued_ns={0: 0, 1: second, 2: second},
        first_ns={0: second, 1: 2 * second, 2: 3 * second},
        last_ns={0: 3 * second, 1: 4 * second},
        tokens={0: 5, 1: 3},
        asked=3,
    )
    assert measured.tokens_per_s == 2
    assert measured.ttft_ms == 1000
    assert measured.tpot_ms == pytest.approx((500 + 1000) / 2)
