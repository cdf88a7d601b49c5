"""What a system comes to, from its files: one schedule's figures, and the part that each node had of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.show import render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.endpoints import curves_of
from benchmark.cluster.export.prometheus import Exported, prometheus_lines
from benchmark.cluster.export.tables import nodes_of, samples_of
from benchmark.cluster.export.text import markdown_lines
from benchmark.cluster.one_system import system_of
from benchmark.cluster.overview.listing import Wanted, list_runs
from benchmark.cluster.overview.page import render_index
from benchmark.cluster.overview.show import render_list
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.stability import table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.report.sections import checks
from benchmark.cluster.resume import remaining
from benchmark.cluster.stored.index import stored_runs
from benchmark.cluster.stored.read import StoredRun, read_stored
from benchmark.cluster.submission.parts import gather_parts
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import (
    CpuTime,
    Energy,
    EngineInfo,
    Failure,
    PeakSearch,
    RepeatRow,
    Repeats,
    RunRecord,
    Sample,
    ServedWindow,
    Telemetry,
)
from benchmark.rundir import FAILURE, NODES, RESULT_FILE, RUN_FILE
from benchmark.settings import ResolvedSettings
from benchmark.verdict import Findings, judge
from tests.unit.building import GPU, HOST, START_NS, asked, closed_loop, in_progress, make_run, result_of, write_node

JOULES = 1000.0


def nodes(**settings: Any) -> dict[str, ResolvedSettings]:
    given = {"benchmark_system": "cluster", "benchmark_engine": "vllm", "benchmark_cost_per_gpu_hour": 3, **settings}
    return {name: asked(**given, benchmark_driver="jw2") for name in ("jw2", "jw3")}


def answered(fails: Sequence[int] = ()) -> list[Sample]:
    """Return twenty samples, a third of them by the second node, whose answers take twice as long."""
    each = []
    for one in closed_loop([500 if index % 3 else 1000 for index in range(20)]):
        server = 0 if one.index % 3 else 1
        changed: dict[str, Any] = {"server": server}
        if one.index in fails:
            lost = {"completed_ns": None, "first_token_ns": None, "output_tokens": 0, "token_ids": ()}
            changed |= {**lost, "error": "http://10.0.0.3:8000 broke off."}
        each.append(Sample.model_validate({**one.model_dump(), **changed}))
    return each


def make(
    directory: Path, samples: Sequence[Sample], dead: str = "", driver: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Write a run of two nodes as one system; the node `dead` did not serve to the end."""
    resolved = nodes(**settings)
    run_dir = make_run(directory, resolved)
    system = system_of(resolved, {"jw2": "10.0.0.2", "jw3": "10.0.0.3"})
    assert system is not None
    run = read_record(run_dir / RUN_FILE, RunRecord)
    write_record(run_dir / RUN_FILE, run.model_copy(update={"system": system}))
    servers = [{"node": place.node, "url": place.url, "replicas": 1} for place in system.servers]
    engine = EngineInfo(name="endpoint", replicas=2, details={"urls": [], "model": "m", "servers": servers})
    measured = result_of("driver", system.resolved, samples)
    verdict = judge(system.resolved.profile, Findings(measured.metrics), 1.0, "complete")
    changes = {"engine": engine, "target_qps": 1.0, "verdict": verdict, **(driver or {})}
    result = result_of("driver", system.resolved, samples, **changes)
    write_node(run_dir, result, samples).rename(run_dir / "driver")
    assert measured.window is not None
    window_s = (measured.window.ended_unix_ns - START_NS) / 1e9
    energy = Energy(joules=JOULES, window_s=window_s)
    watched = ServedWindow(
        window=measured.window, telemetry=Telemetry(ticks=9, interval_ms=100, cost_percent=1, energy=energy)
    )
    for name, one in resolved.items():
        ended = {"status": "failed", "error": "vLLM was ended by signal 9."} if name == dead else {"served": (watched,)}
        environment = HOST.model_copy(update={"gpus": (GPU,)})
        own = EngineInfo(name="vllm", details={"asks_for_key": False})
        served = result_of(
            name, one, (), engine=own, metrics=None, verdict=None, window=None, environment=environment, **ended
        )
        write_node(run_dir, served, ())
        (run_dir / NODES / name / "samples.jsonl").unlink()
    return run_dir


def test_the_figures_are_the_schedules(tmp_path: Path) -> None:
    samples = answered()
    run_dir = make(tmp_path / "run", samples)
    gathered = gather(run_dir)
    result = gathered.result
    assert result.problems == ()
    (group,) = result.groups
    whole = result.system.metrics if result.system else None
    assert whole is not None
    assert (group.qps, group.tokens_per_s, group.latency_ms) == (whole.qps, whole.tokens_per_s, whole.latency_ms)
    assert (group.nodes, group.gpus, group.qps_per_gpu) == (("jw2", "jw3"), 2, whole.qps and whole.qps / 2)
    jw2, jw3 = result.nodes
    assert jw2.metrics is not None
    assert jw3.metrics is not None
    assert (jw2.metrics.queries.completed, jw3.metrics.queries.completed) == (13, 7)
    assert jw2.served is not None
    assert jw2.served.share == 13 / 20
    assert jw3.metrics.latency_ms is not None
    assert jw3.metrics.latency_ms.p50 == 1000
    assert (group.worst_p99_node, group.worst_p99_latency_ms) == ("jw3", 1000)
    # The rates of the parts are over their own time: their sum is another figure, and nobody's.
    assert group.qps != pytest.approx((jw2.metrics.qps or 0) + (jw3.metrics.qps or 0))
    # Each watched itself: the system's energy is all of it, over all answers.
    assert group.energy_joules == 2 * JOULES
    assert group.joules_per_query == 2 * JOULES / 20
    assert jw2.energy is not None
    assert jw2.energy.joules_per_query == pytest.approx(JOULES / 13)
    assert group.cost is not None
    assert group.cost.per_hour == 6
    # The diagnosis holds each node's own part against its peers'.
    (finding,) = result.findings
    assert (finding.node, finding.metric) == ("jw3", "qps")
    assert any("P50 TPOT" in words for words in finding.also)
    check_rendered(run_dir, gathered)


def check_rendered(run_dir: Path, gathered: Gathered) -> None:
    summary = " ".join(render_cluster(gathered.result, gathered.run).split())
    assert "jw2, jw3 answered without the key, so anyone who could reach their ports could use them" in summary
    assert "System one schedule from jw2 over 2 nodes: figures of one system, not a sum" in summary
    assert "the sum over" not in summary
    assert " 65% " in summary
    page = " ".join(re.sub(r"<[^>]*>", " ", render_report(gathered, run_dir, "")).split())
    assert "the sum over" not in page
    assert (
        "System one schedule from jw2 over 2 nodes: figures of one system, not a sum jw2, jw3 answered without" in page
    )
    assert "TPOT P50 ms share verdict" in page
    assert " 65% valid " in page
    # The system's own verdict, of which those of the nodes are no part.
    assert next(line[0] for line in checks(gathered.result)) == "nodes counted at least 2"
    assert {line[1] for line in checks(gathered.result)} <= {"1 of 1", "0 of 1"}
    table = list(csv.DictReader(io.StringIO(render_node_table(gathered))))
    assert [row["served_share"] for row in table] == ["0.65", "0.35"]
    exported = Exported(gathered.run, gathered.result, frozenset(("jw2", "jw3")), origin="here")
    lines = list(prometheus_lines([exported]))
    assert sum("served_ratio{" in line for line in lines) == 2
    assert gathered.result.system is not None
    whole = gathered.result.system.metrics
    assert whole is not None
    assert whole.latency_ms is not None
    told = {
        "system_queries_per_second{": whole.qps,
        "system_output_tokens_per_second{": whole.tokens_per_s,
        'system_latency_seconds{.*statistic="p99"': whole.latency_ms.p99 / 1000,
    }
    for series, value in told.items():
        found = [line for line in lines if re.match(f"llm_benchmark_{series}", line)]
        assert [float(line.split()[-1]) for line in found] == [value, value], series
    assert len(list(samples_of(gathered, run_dir).rows)) == 20


def test_a_node_that_died_is_named(tmp_path: Path) -> None:
    gathered = gather(make(tmp_path / "run", answered(fails=[15, 18]), dead="jw3"))
    result = gathered.result
    jw2, jw3 = result.nodes
    assert (jw2.counted, jw3.counted) == (True, False)
    assert "vLLM was ended by signal 9." in jw3.reason
    assert jw3.served is not None
    assert jw3.served.errors == {"http://10.0.0.3:8000 broke off.": 2}
    assert not result.verdict.valid
    assert "1 of 2 nodes is not counted: jw3." in result.verdict.reasons
    assert any("failed" in reason for reason in result.verdict.reasons)
    assert result.groups[0].queries.failed == 2
    assert result.system is not None
    assert "2 queries failed on jw3: http://10.0.0.3:8000 broke off." in result.system.notes
    # Enough without it: what the driver says of the failed queries stands.
    enough = gather(make(tmp_path / "enough", answered(), dead="jw3", benchmark_min_nodes=1)).result
    assert enough.verdict.valid, enough.verdict.reasons
    # What it used and cost until then nobody knows, and what it answered is among the rest.
    (group,) = enough.groups
    assert (group.energy_joules, group.tokens_per_joule, group.cost) == (None, None, None)
    text = " ".join(render_cluster(enough, read_record(tmp_path / "enough" / RUN_FILE, RunRecord)).split())
    assert "(2 nodes as one system, of which 1 served to the end)" in text


@pytest.mark.parametrize("dead", ["", "jw3"])
def test_a_target_is_that_of_all_servers_or_of_none(dead: str, tmp_path: Path) -> None:
    """For each GPU: of how many it is where one died on the way, nobody knows."""
    peak = {"peak": PeakSearch(target_qps=2.0, settled=True, probes=(), host_vars="benchmark_target_qps: 1.0")}
    system = gather(make(tmp_path / "run", answered(), dead=dead, driver=peak)).result.system
    assert system is not None
    assert any("target found" in note for note in system.notes) == (not dead)


def test_one_server_that_is_left_has_a_spread(tmp_path: Path) -> None:
    result = gather(make(tmp_path / "run", answered(), dead="jw3")).result
    rows = (RepeatRow(number=1, value=1.0, valid=1), RepeatRow(number=2, value=1.0, valid=1))
    repeated = result.model_copy(update={"repeats": Repeats(metric="qps", chosen=1, rows=rows)})
    assert [row["name"] for row in table(repeated)["rows"]] == ["all"]


@pytest.mark.parametrize(("dead", "left"), [("", ()), ("jw3", ("jw2", "jw3"))])
def test_a_system_is_resumed_whole_or_not_at_all(dead: str, left: tuple[str, ...], tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered(), dead=dead)
    run = read_record(run_dir / RUN_FILE, RunRecord)
    assert remaining(run_dir, run, ["jw2", "jw3"], ["jw2", "jw3"]).todo == left
    with pytest.raises(InputError, match="is of one system, the nodes jw2, jw3: resume it with these and no others"):
        remaining(run_dir, run, ["jw2"], ["jw2", "jw3"])


def test_errors_of_a_node_that_goes_on(tmp_path: Path) -> None:
    result = gather(make(tmp_path / "run", answered(fails=[15]))).result
    jw2, jw3 = result.nodes
    assert jw2.verdict is not None
    assert jw2.verdict.valid
    assert jw3.verdict is not None
    assert not jw3.verdict.valid
    assert jw3.reason == "1 query failed here: http://10.0.0.3:8000 broke off."
    # Its part of the answers is shown all the same.
    assert jw3.served is not None
    assert jw3.served.share == 6 / 19
    assert re.search(r"^jw3 .* 32% INVALID$", render_cluster(result, gather(tmp_path / "run").run), re.MULTILINE)


def test_the_drivers_own_limits_are_named(tmp_path: Path) -> None:
    late = [one.model_copy(update={"scheduled_ns": max(0, one.issued_ns - 150_000_000)}) for one in answered()]
    starved = {"cpu": CpuTime(wall_s=10, used_s=9, waited_s=4)}
    system = gather(make(tmp_path / "run", late, driver=starved)).result.system
    assert system is not None
    assert "The driver's threads waited 4.0 s in 10.0 s for a core: " in system.notes[0]
    assert "the driver was measured, not the servers" in system.notes[1]


def test_without_the_driver_nothing_counts(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered())
    for path in (run_dir / "driver").iterdir():
        path.unlink()
    reason = "http://10.0.0.2:8000 refuses the key."
    write_record(run_dir / "driver" / FAILURE, Failure(node="driver", stage="benchmark", reason=reason))
    result = gather(run_dir).result
    assert (result.counted, result.groups) == (0, ())
    assert result.verdict.reasons == (f"The driver (jw2): {reason}",)
    summary = " ".join(render_cluster(result, gather(run_dir).run).split())
    assert "System nothing was measured; the driver would have been jw2" in summary
    assert summary.endswith(f"INVALID: The driver (jw2): {reason}")


def test_a_system_that_goes_on_is_in_progress(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered())
    for path in [*(run_dir / "driver").iterdir(), *(run_dir / NODES).glob("*/*")]:
        path.unlink()
    with in_progress(run_dir):
        gathered = gather(run_dir)
    assert [row.status for row in gathered.result.nodes] == ["in progress"] * 2
    summary = " ".join(render_cluster(gathered.result, gathered.run).split())
    assert "Nodes 0 of 2 counted, 2 in progress: jw2, jw3" in summary
    assert summary.endswith("IN PROGRESS: the verdict comes with the run's end.")
    ended = gather(run_dir).result
    assert "The driver returned no result." in ended.verdict.reasons


def test_it_is_compared_with_its_like_alone(tmp_path: Path) -> None:
    one, other = (make(tmp_path / name, answered()) for name in ("one", "other"))
    assert compare(load_side(one), load_side(other)).outcome == "no difference"
    with pytest.raises(InputError, match="all nodes are one system: it is compared as a whole"):
        load_side(one, "jw2")
    apart = make_run(tmp_path / "apart", {name: asked(benchmark_engine="vllm") for name in ("jw2", "jw3")})
    for name, resolved in read_record(apart / RUN_FILE, RunRecord).nodes.items():
        write_node(apart, result_of(name, resolved, closed_loop([1000] * 20)), closed_loop([1000] * 20))
    assert {*load_side(one).groups}.isdisjoint(load_side(apart).groups)


def test_a_comparison_says_that_it_is_of_one_system(tmp_path: Path) -> None:
    one, other = (make(tmp_path / name, answered()) for name in ("one", "other"))
    text = " ".join(render_text(compare(load_side(one), load_side(other))).split())
    assert ", float16, vllm, 2 x NVIDIA A30: one system" in text
    assert "Of all: the result of one schedule over all nodes." in text
    assert "Of node" not in text
    assert re.search(r"tokens/s all \S+ \S+ ", text)
    assert " node " not in text.partition("verdict")[2].partition("Of all")[0]


def test_systems_of_other_engines_or_options_are_not_compared(tmp_path: Path) -> None:
    """Though the driver asks both by the same words."""
    plain = load_side(make(tmp_path / "one", answered()))
    other = load_side(make(tmp_path / "other", answered(), benchmark_engine_options={"max_num_seqs": 4}))
    (refused,) = compare(plain, other).refused
    assert "the profile's engine_options.max_num_seqs is 4 instead of" in refused


def test_people_read_each_nodes_share(tmp_path: Path) -> None:
    lines = list(markdown_lines(nodes_of(gather(make(tmp_path / "run", answered())), for_people=True)))
    heads, _, jw2, jw3 = ([cell.strip() for cell in line.split("|")] for line in lines)
    share = heads.index("served\\_share")
    assert (jw2[share], jw3[share]) == ("0.65", "0.35")


def test_a_nodes_history_says_that_it_is_of_a_part(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered())
    write_record(run_dir / RESULT_FILE, gather(run_dir).result)
    run = StoredRun("run", read_stored(tmp_path, "run"))
    node = run.node("jw2")
    assert node is not None
    assert node.label.endswith(", its part of one system")


def test_lists_of_runs_say_that_it_is_one_system(tmp_path: Path) -> None:
    """Beside runs of nodes one by one, whose figures are sums."""
    run_dir = make(tmp_path / "run", answered())
    write_record(run_dir / RESULT_FILE, gather(run_dir).result)
    found = list_runs(tmp_path, Wanted())
    assert found.runs[0].system
    assert "\n  One system. " in render_list(found)
    page = render_index(tmp_path, list(stored_runs(tmp_path, [])), [])
    assert "2 of 2<small>one system</small>" in page


def test_what_is_of_one_node_each_is_refused(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered())
    with pytest.raises(InputError, match="are one system, but in a tree each node is a system"):
        gather_parts([run_dir])
    with pytest.raises(InputError, match="a point of the endpoints format is of one node: name a run with"):
        curves_of(gather(run_dir))


def test_a_changed_sample_is_refused(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", answered())
    path = run_dir / "driver" / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"output_tokens":64', '"output_tokens":63'), *lines[1:]]) + "\n")
    result = gather(run_dir).result
    assert result.counted == 0
    assert not result.verdict.valid
    assert any("Refused: " in reason for reason in result.verdict.reasons)
