"""`python3 -m benchmark goodput`, and the same in everything that a run leaves."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.run_verdict import run_verdict
from benchmark.rundir import read_run
from tests.unit.building import RUN_ID, add_node, asked, failed, make_run, result_of, sample, write_node

LIMITED = {"limits": [{"metric": "ttft_ms.p99", "at_most": 500}, {"metric": "tpot_ms.p99", "at_most": 50}]}


def users(run_dir: Path, node: str, count: int, queries: int, late: int = 0, profile: Any = None) -> None:
    """Write a node that served so many users at once, each query in 1 s; of `late` the first token came too late."""
    samples = [
        sample(i, 1000, 900 if i < late else 100, 64, 1000 * (i // count)) for i in range(queries - queries % count)
    ]
    write_node(run_dir, result_of(node, asked(len(samples), profile), samples), samples)


def words(text: str) -> str:
    return " ".join(text.split())


def run_goodput(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["goodput", *arguments]) == 0
    return words(capsys.readouterr().out)


def test_any_run_answers_for_given_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": asked(690)})
    users(run_dir, "jw2", 23, 690, late=6)
    results = ["--results-dir", str(tmp_path)]
    # The profile has no such limits.
    assert main(["goodput", RUN_ID, *results]) == 2
    assert "write" not in (said := words(capsys.readouterr().err))
    assert "Give limits: --slo ttft=500 tpot=30" in said
    shown = run_goodput(capsys, RUN_ID, *results, "--slo", "ttft=500", "tpot=50")
    assert (
        "This node serves 23 users at once: first token under 0.5 s and at least 20 tokens/s each, for 99 % of" in shown
    )
    assert "Measured: 99.1 % of 690" in shown
    shown = run_goodput(capsys, RUN_ID[:12], *results, "--slo", "ttft=50")
    assert "does not serve 23 users at once: only 0 of 690 answers met the limits (first token under 0.05 s)" in shown
    reported = json.loads(run_goodput(capsys, str(run_dir), "--slo", "ttft=1000", "--json"))
    assert reported["nodes"]["jw2"]["met"] == 690
    assert reported["groups"][0]["goodput"]["slo"] == {"ttft_ms": 1000, "tpot_ms": None}


@pytest.mark.parametrize("slo", [["ttft"], ["ttft=fast"], ["ttft=0"], ["e2e=5"], ["ttft=1", "ttft=2"], ["tpot=nan"]])
def test_a_limit_that_is_none_is_refused(slo: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path, {"jw2": asked(3)})
    add_node(run_dir, "jw2", asked(3), [1000.0] * 3)
    assert main(["goodput", str(run_dir), "--slo", *slo]) == 2
    assert "--slo ttft=500 tpot=30, in milliseconds" in capsys.readouterr().err


def test_too_few_answers_carry_no_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path, {"jw2": asked(20)})
    users(run_dir, "jw2", 4, 20)
    shown = run_goodput(capsys, str(run_dir), "--slo", "ttft=500", "tpot=50")
    assert "serves" not in shown
    assert "unverified, not an MLCommons submission" in shown
    assert "These figures say nothing about the hardware" not in shown
    assert "had 4 users at once: 20 of 20 answers met the limits (first token under 0.5 s" in shown
    assert "A claim about 99 % takes 662 answers" in shown


def test_nothing_is_said_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for late, sentences in (
        ({}, ["These 2 nodes serve 46 users at once (23 each)"]),
        ({"jw3": 600}, ["jw2 serves 23 users at once", "jw3 does not serve 23 users at once"]),
    ):
        run_dir = make_run(tmp_path / str(len(late)), dict.fromkeys(("jw2", "jw3"), asked(690)))
        for node in ("jw2", "jw3"):
            users(run_dir, node, 23, 690, late=late.get(node, 0))
        shown = run_goodput(capsys, str(run_dir), "--slo", "ttft=500", "tpot=50")
        assert [shown.count(sentence) for sentence in sentences] == [1] * len(sentences), shown
        assert shown.count("answers in progress for at least half") == len(sentences), shown


def test_goodput_stands_in_all_that_a_run_leaves(tmp_path: Path) -> None:
    resolved = asked(690, LIMITED)
    make_run(tmp_path, {"jw2": resolved, "jw3": resolved})
    users(tmp_path, "jw2", 23, 690, profile=LIMITED)
    users(tmp_path, "jw3", 15, 690, profile=LIMITED)
    gathered = gather(tmp_path)
    run, result = gathered.run, gathered.result
    summary = words(render_cluster(result, run))
    said = "These 2 nodes serve 38 users at once (15 to 23 each): first token under 0.5 s and at least 20 tokens/s each"
    assert f"Users {said}" in summary
    assert "Goodput 100 % of 1,380 queries" in summary
    assert "within TTFT 500 ms and TPOT 50 ms" in summary
    page = words(render_report(gathered, tmp_path))
    assert said in page
    assert 'id="goodput"' in page
    (jw2, _) = csv.DictReader(render_node_table(gathered).splitlines())
    assert (jw2["goodput_share"], jw2["goodput_users"], jw2["goodput_limit_tpot_ms"]) == ("1.0", "23", "50.0")
    series = [line for line in prometheus_lines([whole(run, result)]) if 'node="jw2"' in line]
    assert [line.split()[-1] for line in series if "llm_benchmark_goodput_ratio{" in line] == ["1"]
    assert [line.split()[-1] for line in series if "llm_benchmark_users{" in line] == ["23"]
    verdict = run_verdict(Outcome(run, result), tmp_path, "report.html")
    assert verdict.figures[0].goodput == result.groups[0].goodput
    assert verdict.figures[0].serves.startswith(said)


def test_one_node_that_does_not_serve_is_named(tmp_path: Path) -> None:
    resolved = asked(690, LIMITED)
    make_run(tmp_path, {"jw2": resolved, "jw3": resolved})
    users(tmp_path, "jw2", 23, 690, profile=LIMITED)
    users(tmp_path, "jw3", 23, 690, late=69, profile=LIMITED)
    summary = words(render_cluster(aggregate(tmp_path), read_run(tmp_path)))
    assert (
        "1 of 2 nodes serve their users within the limits (jw2). jw3 does not serve 23 users at once: only 621"
        in summary
    )
    assert "These 2 nodes serve" not in summary


def test_a_node_whose_tokens_were_not_seen_is_named(tmp_path: Path) -> None:
    resolved = asked(20, LIMITED)
    make_run(tmp_path, {"jw2": resolved, "jw3": resolved})
    users(tmp_path, "jw2", 4, 20, profile=LIMITED)
    unseen = [sample(i, 1000, 900).model_copy(update={"pieces": 1}) for i in range(20)]
    write_node(tmp_path, result_of("jw3", resolved, unseen), unseen)
    result = aggregate(tmp_path)
    assert [row.goodput is None for row in result.nodes] == [False, True]
    summary = words(render_cluster(result, read_run(tmp_path)))
    assert "Goodput not for the whole group: undefined for jw3" in summary
    assert "users at once" not in summary


def test_a_failed_query_is_missed(tmp_path: Path) -> None:
    resolved = asked(2, LIMITED)
    make_run(tmp_path, {"jw2": resolved})
    samples = [sample(0, 1000, 100), failed(1, 1000)]
    write_node(tmp_path, result_of("jw2", resolved, samples), samples)
    (row,) = aggregate(tmp_path).nodes
    assert row.goodput is not None
    assert (row.goodput.queries, row.goodput.met) == (2, 1)
