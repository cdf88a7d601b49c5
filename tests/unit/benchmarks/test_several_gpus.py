"""The parts of what several GPUs are measured with that need none: what is asked, and what is made of the answers."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.profiles import load_profile
from benchmarks import greedy, several_gpus
from benchmarks.apart import Row, rows_apart
from benchmarks.playbook import Ran


def two_rows(row: str) -> Iterator[Row]:
    yield {"load": row}
    raise ValueError("no\nmore")


def never() -> Iterator[Row]:
    time.sleep(600)
    yield {}


def test_what_a_process_raises_is_a_row() -> None:
    assert list(rows_apart(two_rows, "a")) == [{"load": "a"}, {"note": "ValueError: no more"}]


def test_a_process_that_takes_too_long_is_ended() -> None:
    assert list(rows_apart(never, limit_s=0.01)) == [{"note": "stopped: not finished within 0.01 s"}]
    assert multiprocessing.active_children() == []


def given(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"queries": 100, "rate": 3.0, "seconds": 10.0, "shrink": 16, "gpus": "0,1", **changes})


@pytest.mark.parametrize(
    ("kind", "options", "prompts"),
    [
        ("Offline", {"min_duration_ms": 0, "min_query_count": 200, "max_query_count": 200}, 200),
        ("Server", {"min_duration_ms": 10_000, "min_query_count": 1}, 30),
    ],
)
def test_its_profiles_are_mlperfs_with_other_prompts(
    tmp_path: Path, kind: str, options: dict[str, int], prompts: int
) -> None:
    made = load_profile(several_gpus._profile(kind, given(), tmp_path, times=2))
    base = load_profile(f"mlperf-{kind.lower()}")
    assert (made.engine, made.engine_options, made.limits) == (base.engine, base.engine_options, base.limits)
    assert made.scenario_options == {"scenario": kind, "model": "llama3_1-8b", **options}
    assert made.dataset_options["prompts"] == prompts
    assert made.dataset_options["input_tokens"]["most"] == 156
    assert (made.generation.min_new_tokens, made.generation.max_new_tokens) == (8, 8)


def test_a_part_without_its_gpus_is_a_row(tmp_path: Path) -> None:
    (row,) = several_gpus.rows_of("cluster", given(gpus="1"), tmp_path / "cluster")
    assert row == {"part": "cluster", "note": "needs 2 GPUs, and --gpus is 1"}


def row(part: str, kind: str, figures: dict[str, float], gpus: int = 2) -> Row:
    return {"part": part, "kind": kind, "GPUs": gpus, **figures}


def test_rates_are_compared_for_as_many_gpus() -> None:
    rows = [
        row("one", "Offline", {"tokens/s": 1000.0, "TPOT mean": 80.0}),
        row("one", "Server", {"QPS": 30.0, "P99": 300.0}),
        row("replicas", "Offline", {"tokens/s": 1.0}),
        row("replicas", "Offline", {"tokens/s": 1960.0, "TPOT mean": 84.0}),
        row("replicas", "Server", {"QPS": 57.0, "P99": 600.0}),
        row("cluster", "Offline", {"tokens/s": 1960.0 * 1.04}),
        row("cluster", "Server", {}),
        row("sequential", "", {"TPOT mean": 30.0}, 1),
        row("sequential", "", {"TPOT mean": 45.0}, 2),
    ]
    assert list(several_gpus.ratios(rows)) == [
        "replicas / 2 x one, Offline: tokens/s 0.980 (target 0.97 to 1.1: met), TPOT mean 1.050",
        "replicas / 2 x one, Server: QPS 0.950 (target 0.97 to 1.1: MISSED), P99 2.000",
        "cluster / replicas, Offline: tokens/s 1.040 (target 0.97 to 1.03: MISSED)",
        "sequential, two GPUs / one, TPOT mean 1.500",
    ]


def test_a_run_without_a_result_says_what_the_playbook_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exited with code 4 without a result of node: it is refused"):
        Ran(4, "it is refused", tmp_path).row("node")


def test_answers_that_part_are_counted() -> None:
    answers = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert greedy.same(answers, answers) == "3 of 3 answers equal"
    assert greedy.same(answers, [[1, 2, 3], [4, 0, 6], [7, 8]]) == (
        "1 of 3 answers equal, the others diverge after 1, 2 tokens"
    )


def test_ways_are_held_against_one_gpu_of_each_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"vllm, tensor 2": ([[1, 5]], ""), "vllm, data 2": ([], "it did not start")}
    monkeypatch.setattr(greedy, "_answers", lambda way, *about: said.get(str(way), ([[1, 2]], "")))
    monkeypatch.setattr(greedy, "make_model", lambda directory: directory)
    rows = {row["load"]: row for row in greedy.compare("/none", "cuda", ["0", "1"], 60, tmp_path)}
    assert [row["valid"] for row in rows.values()] == [None, True, None, False, True, None]
    parts = "0 of 1 answers equal, the others diverge after 1 tokens"
    assert rows["vllm, tensor 2"]["note"] == f"as with sequential, one GPU: {parts}; as with vllm, one GPU: {parts}"
    assert rows["vllm, data 2"]["note"] == "it did not start"


def test_one_way_answers(tmp_path: Path) -> None:
    model = greedy.make_model(tmp_path / "model")
    (found,) = greedy.answer(greedy.WAYS[0], str(model), "/none", "cpu", [])
    assert len(found["answers"]) == greedy.QUERIES
    assert {len(answer) for answer in found["answers"]} == {greedy.ANSWER}
    # Answers of a model that says something else to each.
    assert len({tuple(answer) for answer in found["answers"]}) == greedy.QUERIES
