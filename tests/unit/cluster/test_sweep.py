"""The curves of a sweep: against theory, of nodes that stopped, failed or were measured in several attempts."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.attempts import open_attempt
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.export.tables import curves_of, samples_of
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.curve_table import lines_of
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.results.load import load_node
from benchmark.cluster.sweep import steps_left, steps_of
from benchmark.records import Check, ClusterResult, Curve, Load, Sample, Verdict
from benchmark.repeats import own_choice
from benchmark.rundir import read_run
from benchmark.text.columns import WIDTH
from tests.unit.building import asked, make_run, result_of, write_node
from tests.unit.queues import LADDER, S, queue, sweeping, write_sweep

SERVERS, SERVICE_S = 6, 2
LIMITS = [{"metric": "latency_ms.p99", "at_most": 3000.0}]


def steps(
    servers: int = SERVERS, service_s: float = SERVICE_S, ladder: tuple[int, ...] = LADDER
) -> dict[int, list[Sample]]:
    return {users: queue(users, servers, [int(service_s * S)] * (users * 6)) for users in ladder}


def run_of(directory: Path, nodes: dict[str, dict[int, list[Sample]]]) -> Path:
    resolved = sweeping(limits=LIMITS)
    run_dir = make_run(directory, dict.fromkeys(nodes, resolved))
    for node, each in nodes.items():
        write_sweep(run_dir, node, resolved, each)
    return run_dir


def curves(result: ClusterResult) -> dict[str, Curve]:
    assert result.sweep is not None
    return {curve.of if curve.kind == "node" else "all": curve for curve in result.sweep.curves}


def test_the_curve_of_a_queue_is_what_theory_says(tmp_path: Path) -> None:
    result = aggregate(run_of(tmp_path, {"jw2": steps(), "jw3": steps()}))
    assert [row.reason for row in result.nodes] == ["", ""]
    for name, nodes in (("jw2", 1), ("all", 2)):
        curve = curves(result)[name]
        assert [point.step for point in curve.points] == list(LADDER)
        for point in curve.points:
            users = int(point.step)
            assert point.qps == pytest.approx(nodes * min(users, SERVERS) / SERVICE_S, rel=0.02)
            assert point.tokens_per_s_per_gpu == pytest.approx(64 * min(users, SERVERS) / SERVICE_S, rel=0.02)
            # A token every 9/10 of the service over 63, whoever waits.
            assert point.tokens_per_s_per_user == pytest.approx(63 / (0.9 * SERVICE_S))
            # Who arrives last in the first round waits longest: the others take turns.
            assert point.latency_p50_ms == pytest.approx(1000 * SERVICE_S * max(1, users / SERVERS), rel=0.51)
        assert curve.knee == pytest.approx(SERVERS, rel=0.05)
        assert curve.enough == 8
        (limit,) = curve.crossings
        assert (limit.within, limit.beyond) == (4, 8)
    assert result.sweep is not None
    assert result.sweep.chosen == 8
    assert result.repeats is None


def test_every_other_figure_is_of_the_chosen_step(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, {"jw2": steps(), "jw3": steps(service_s=2.2)})
    gathered = gather(run_dir)
    assert gathered.result.sweep is not None
    chosen = gathered.result.sweep.chosen
    assert chosen is not None
    assert {row.metrics.queries.completed for row in gathered.result.nodes if row.metrics} == {6 * chosen}
    assert len(list(samples_of(gathered, run_dir).rows)) == 2 * 6 * chosen
    (group,) = load_side(run_dir).groups.values()
    assert {node.metrics.queries.completed for node in group if node.metrics} == {6 * chosen}
    text = render_cluster(gathered.result, gathered.run)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "8 in flight on each GPU: all figures outside the curves are of this step" in " ".join(text.split())
    rows = [line.split() for line in text.splitlines() if line[:3].strip(" +*!").isdigit()]
    assert [row[0].strip("+*!~") for row in rows] == [str(step) for step in LADDER]
    assert "* fewer than 662 samples: its P99 is without confidence" in text
    assert "P99 latency 3000 ms: met up to 4 in flight" in " ".join(text.split())
    page = render_job_summary(Outcome(gathered.run, gathered.result))
    assert [line.split()[1].strip("+*!\\") for line in page.splitlines() if line.count("|") == 10][2:] == [
        str(step) for step in LADDER
    ]


def test_a_load_without_a_ladder_says_how_users_are_served(tmp_path: Path) -> None:
    resolved = asked(80, {"scenario_options": {"concurrency": 8}})
    run_dir = make_run(tmp_path, {"jw2": resolved})
    samples = queue(8, 8, [SERVICE_S * S] * 80)
    load = Load(concurrency=8)
    write_node(run_dir, result_of("jw2", resolved, samples, load=load), samples)
    result = aggregate(run_dir)
    assert (result.nodes[0].load, result.sweep) == (load, None)
    words = " ".join(render_cluster(result, read_run(run_dir)).split())
    assert (
        "Load 8 in flight on each GPU, a closed loop: without a schedule, times count from the previous answer" in words
    )
    assert "previous answer; 35.0 tokens/s for each" in words


def test_nodes_may_stop_at_different_steps(tmp_path: Path) -> None:
    short = steps(servers=2, ladder=LADDER[:3])
    result = aggregate(run_of(tmp_path, {"jw2": steps(), "jw3": short}))
    assert [row.counted for row in result.nodes] == [True, True]
    found = curves(result)
    assert [point.nodes for point in found["all"].points] == [2, 2, 2, 1, 1]
    assert "~ not measured by all nodes" in render_cluster(result, read_run(tmp_path))
    assert found["jw3"].knee == pytest.approx(2)
    assert result.sweep is not None
    assert result.sweep.chosen == 4, "of those that all nodes measured"


def test_each_step_has_its_cost_and_its_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before six servers up to four users wait for nobody; 3.6 an hour are 0.001 a second."""
    limits = [{"metric": "ttft_ms.p99", "at_most": limit} for limit in (500.0, 2000.0)]
    limits += [{"metric": "tpot_ms.p99", "at_most": 30.0}]
    resolved = sweeping(limits=limits, benchmark_cost_per_gpu_hour=3.6, benchmark_currency="EUR")
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), resolved))
    each = {users: queue(users, SERVERS, [SERVICE_S * S] * 672) for users in LADDER}
    for node in ("jw2", "jw3"):
        write_sweep(run_dir, node, resolved, each)
    gathered = gather(run_dir)
    for name, nodes in (("jw2", 1), ("all", 2)):
        for point in curves(gathered.result)[name].points:
            rate = 32 * min(point.step, SERVERS)
            assert point.cost is not None
            assert point.cost.per_million_output_tokens == pytest.approx(1000 / rate, rel=0.01)
            assert point.goodput is not None
            assert (point.goodput.users, point.goodput.served) == (nodes * point.step, point.step <= SERVERS)
    text = " ".join(render_cluster(gathered.result, gathered.run).split())
    assert "These 2 nodes serve 8 users at once (4 each): first token under 0.5 s and at least 33.3 tokens/s" in text
    assert "Cost EUR per million output tokens: 31.2 with 1 in flight, 15.6 with 2, 7.81 with 4," in text
    assert main(["goodput", str(run_dir), "--slo", "ttft=500"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "jw3 1 in flight on each GPU: 100 % of 672 queries, 32.0 tokens/s, within TTFT 500 ms 2 in flight on" in shown
    )
    assert "These 2 nodes serve 8 users at once (4 each): first token under 0.5 s, for 99 % of answers." in shown
    assert "jw3 serves" not in shown
    assert main(["goodput", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["jw2"]["16"]["share"] < 0.1
    table = curves_of(gathered)
    (row,) = [row for row in table.rows if row[2] == "jw3" and row[4] == 1]
    found = dict(zip(table.heads, row, strict=True))
    assert (found["cost_currency"], found["goodput_users"]) == ("EUR", 1)
    assert found["cost_per_million_output_tokens"] == pytest.approx(31.25)
    lines = "".join(prometheus_lines([whole(gathered.run, gathered.result)])).splitlines()
    assert sum(line.startswith("llm_benchmark_sweep_cost_per_million_output_tokens{") for line in lines) == 10
    assert "EUR per million output tokens" in render_report(gathered, run_dir)


def test_beyond_the_knee_chance_does_not_choose_a_step(tmp_path: Path) -> None:
    """Of steps whose rates are alike the least load stands for the run: the others' latencies are a multiple."""
    measured = {**steps(), 16: steps(service_s=1.98, ladder=(16,))[16]}
    result = aggregate(run_of(tmp_path, {"jw2": measured}))
    points = {point.step: point.tokens_per_s or 0 for point in curves(result)["jw2"].points}
    assert points[16] > points[8]
    assert result.sweep is not None
    assert result.sweep.chosen == 8
    node = load_node(tmp_path, read_run(tmp_path), "jw2").result
    assert node is not None
    assert own_choice(node) == LADDER.index(8) + 1, "and the node says the same"


@pytest.mark.parametrize("verdict", [True, False], ids=["stopped", "killed"])
def test_what_a_node_measured_before_it_died_is_kept(tmp_path: Path, verdict: bool) -> None:
    resolved = sweeping(limits=LIMITS)
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), resolved))
    write_sweep(run_dir, "jw2", resolved, steps())
    gone: dict[str, Any] = {"status": "interrupted", "stage": "measuring", "error": "gone", "sweep_ended": ""}
    gone |= {} if verdict else {"verdict": None, "metrics": None}
    place = write_sweep(run_dir, "jw3", resolved, steps(ladder=LADDER[:2]), **gone)
    # In the midst of the third.
    (place / "repeat3_samples.jsonl").write_bytes((place / "samples.jsonl").read_bytes())
    result = aggregate(run_dir)
    jw2, jw3 = result.nodes
    assert (jw2.counted, jw3.counted, jw3.status, result.problems) == (True, False, "interrupted", ())
    found = curves(result)
    assert [point.step for point in found["jw3"].points] == [1, 2]
    assert found["jw3"].group is None
    assert [point.nodes for point in found["all"].points] == [1] * len(LADDER)
    text = render_cluster(result, read_run(run_dir))
    assert "jw3: the curve" in text


def test_a_run_in_which_no_node_counts_has_its_curves(tmp_path: Path) -> None:
    resolved = sweeping()
    names = [f"jw{number}" for number in range(1, 8)]
    run_dir = make_run(tmp_path, dict.fromkeys(names, resolved))
    for node in names:
        gone: dict[str, Any] = {"status": "interrupted", "stage": "measuring", "sweep_ended": ""}
        write_sweep(run_dir, node, resolved, steps(ladder=LADDER[:3]), **gone)
    gathered = gather(run_dir)
    assert gathered.result.sweep is not None
    assert gathered.result.sweep.chosen is None
    text = render_cluster(gathered.result, gathered.run)
    assert text.count(": the curve") == 5
    assert "jw6, jw7: their curves are in the JSON" in " ".join(text.split())
    page = render_report(gathered, run_dir)
    assert "no node is counted: only the curves are shown" in page
    assert 'href="#curves"' in page
    assert [name in page for name in ("Steps of jw1", "Steps of jw5", "Steps of jw6")] == [True, True, False]


def test_an_interruption_takes_nothing_from_earlier_steps(tmp_path: Path) -> None:
    resolved = sweeping()
    run_dir = make_run(tmp_path, {"jw2": resolved})
    gone: dict[str, Any] = {"status": "interrupted", "stage": "measuring", "sweep_ended": ""}
    kept = Check(metric="queries.failed", value=0, comparison="at_most", limit=0, passed=True)
    lost = Verdict(valid=False, reasons=("The run is interrupted.",), checks=(kept,))
    write_sweep(run_dir, "jw2", resolved, steps(ladder=LADDER[:1]), **gone, verdict=lost)
    sweep = aggregate(run_dir).sweep
    assert sweep is not None
    (curve,) = sweep.curves
    assert [point.valid for point in curve.points] == [True]
    assert dict(lines_of(sweep, curve))["Knee"].startswith("not known: only one step was measured, with ")


def test_a_node_that_dies_in_its_first_step_says_why(tmp_path: Path) -> None:
    resolved = sweeping()
    run_dir = make_run(tmp_path, {"jw2": resolved})
    gone: dict[str, Any] = {"status": "failed", "stage": "measuring", "error": "No memory.", "sweep_ended": ""}
    write_sweep(run_dir, "jw2", resolved, steps(ladder=LADDER[:1]), **gone, load=None)
    result = aggregate(run_dir)
    assert (result.nodes[0].status, result.sweep, result.problems) == ("failed", None, ())
    assert "No memory." in result.nodes[0].reason


def test_a_further_attempt_goes_on_with_the_step_that_lacks(tmp_path: Path) -> None:
    resolved = sweeping(limits=LIMITS)
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), resolved))
    stopped: dict[str, Any] = {"status": "interrupted", "stage": "measuring", "sweep_ended": ""}
    write_sweep(run_dir, "jw2", resolved, steps(ladder=LADDER[:3]), **stopped)
    write_sweep(run_dir, "jw3", resolved, steps(ladder=LADDER[:2]), **stopped)
    run = read_run(run_dir)
    open_attempt(run_dir, run, run.nodes, command="again")
    # All go on together, so with the first that one of them lacks.
    assert steps_left(run_dir, read_run(run_dir), run.nodes).first_step == 3
    # An attempt that ends in its first step takes nothing away.
    for node in run.nodes:
        write_sweep(run_dir, node, resolved, steps(ladder=LADDER[2:3]), attempt=2, load=None, **stopped)
    kept = [list(steps_of(load_node(run_dir, read_run(run_dir), node))) for node in ("jw2", "jw3")]
    assert kept == [[1, 2, 4], [1, 2]]
    run = read_run(run_dir)
    number = open_attempt(run_dir, run, run.nodes, command="again")
    assert steps_left(run_dir, read_run(run_dir), run.nodes).first_step == 3
    for node in run.nodes:
        write_sweep(run_dir, node, resolved, steps(ladder=LADDER[2:]), attempt=number)
    result = aggregate(run_dir)
    assert [row.counted for row in result.nodes] == [True, True], [row.reason for row in result.nodes]
    assert all([point.step for point in curve.points] == list(LADDER) for curve in curves(result).values())
    assert curves(result)["all"].knee == pytest.approx(SERVERS, rel=0.05)


def test_steps_that_are_not_the_ladders_are_refused(tmp_path: Path) -> None:
    odd = {users: each for users, each in steps().items() if users != 4}
    (row,) = aggregate(run_of(tmp_path, {"jw2": odd})).nodes
    assert row.status == "refused"
    assert "it measured the steps [1, 2, 8, 16]" in row.reason.replace(".0", "")


def uneven(seed: int, slower: float) -> dict[int, list[Sample]]:
    chance = random.Random(seed)
    return {
        users: queue(users, SERVERS, [int(slower * chance.uniform(0.95, 1.05) * S) for _ in range(users * 30)])
        for users in LADDER
    }


def test_a_node_ten_percent_slow_is_named_from_the_curves(tmp_path: Path) -> None:
    paces = {"jw1": 1.0, "jw2": 1.01, "jw3": 1.1, "jw4": 0.99, "jw5": 1.0}
    nodes = {name: uneven(seed, pace) for seed, (name, pace) in enumerate(paces.items())}
    # One that stopped early is held against the others in the steps that all have.
    nodes["jw4"] = {users: nodes["jw4"][users] for users in LADDER[:4]}
    run_dir = run_of(tmp_path, nodes)
    result = aggregate(run_dir)
    (finding,) = result.findings
    assert (finding.node, finding.metric) == ("jw3", "curve.tokens_per_s")
    assert finding.change == pytest.approx(1 / 1.1 - 1, abs=0.01)
    assert "P50 TPOT over the curve" in " ".join(finding.also)
    assert "tokens/s over the curve is" in " ".join(render_cluster(result, read_run(run_dir)).split())
