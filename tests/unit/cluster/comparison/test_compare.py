"""What became better or worse: with like settings only, and never by chance or by a trifle."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean

import pytest

from benchmark import metrics
from benchmark.cli import main
from benchmark.cluster.comparison import compare, compare_nodes
from benchmark.cluster.comparison.show import HEADS, render_markdown, render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.results.load import LoadedNode, Times
from benchmark.columns import Columns
from benchmark.records import GroupChange, Sample
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import GPU, HOST, asked, result_of
from tests.unit.cluster.comparison.virtual import add_run, samples
from tests.unit.cluster.render.test_job_summary import cells

ENGINE = {"ttft_ms": 20, "tpot_ms": 5, "spread": 0.02}
A30 = HOST
H100 = HOST.model_copy(update={"gpus": (GPU.model_copy(update={"name": "NVIDIA H100"}),)})


def loaded(each: list[Sample], name: str = "jw2") -> LoadedNode:
    result = result_of(name, asked(len(each)), each)
    return LoadedNode(name, result, metrics.compute(Columns.of(each), len(each)), Times.of(Columns.of(each)))


def changed(before: list[Sample], after: list[Sample]) -> GroupChange:
    return compare_nodes("x", [loaded(before)], [loaded(after)])


@pytest.mark.parametrize("number", range(10))
def test_five_percent_slower_is_worse_in_ten_of_ten_tries(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = samples(monkeypatch, f"before {number}", 40, **ENGINE)
    slower = samples(monkeypatch, f"after {number}", 40, slowdown=1.05, **ENGINE)
    worse = changed(before, slower)
    assert worse.outcome == "worse"
    assert {c.metric for c in worse.changes if c.outcome == "worse"} >= {"qps", "tokens_per_s", "latency_ms.p50"}
    again = samples(monkeypatch, f"again {number}", 40, **ENGINE)
    assert changed(before, again).outcome == "within noise"


def test_the_real_engine_in_real_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        "{name: own, version: 1, kind: self-test, scenario: closed_loop, engine: simulated, dataset: curated, "
        "samples: 15, warmup: 0, generation: {max_new_tokens: 8}, "
        "engine_options: {ttft_ms: 20, tpot_ms: 5, spread: 0.02}}"
    )
    # Other tests measure beside.
    own = ("device=cpu", "shared_machine=true")
    sets = [f"benchmark_results_dir={tmp_path}", f"benchmark_profile={profile}", *(f"benchmark_{one}" for one in own)]
    words = ["run", *(word for one in sets for word in ("--set", one))]
    monkeypatch.setenv("NODE_NAME", "jw2")
    runs = []
    for slowdown in ("1", "2"):
        monkeypatch.setenv("SIMULATED_SLOWDOWN", slowdown)
        assert main(words) == 0
        runs.append((tmp_path / "latest").resolve().name)
    capsys.readouterr()
    assert main(["compare", *runs, "--results-dir", str(tmp_path)]) == 1
    assert "WORSE: QPS" in capsys.readouterr().out


def test_a_run_and_itself_have_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, "a", {"jw2": samples(monkeypatch, "1", 700, **ENGINE)})
    side = load_side(tmp_path / "a")
    comparison = compare(side, side)
    assert comparison.outcome == "no difference"
    assert {change.outcome for group in comparison.groups for change in group.changes} <= {
        "no difference",
        "not judged",
    }
    assert "NO DIFFERENCE" in render_text(comparison)


def repeated(monkeypatch: pytest.MonkeyPatch, name: str, slowdowns: Sequence[float]) -> LoadedNode:
    each = [
        loaded(samples(monkeypatch, f"{name} {number}", 40, slowdown=slowdown, **ENGINE))
        for number, slowdown in enumerate(slowdowns)
    ]
    return replace(each[0], repeats=tuple(each))


def test_repeats_tell_how_far_a_run_differs_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = repeated(monkeypatch, "before", [1.0] * 5)
    slower = repeated(monkeypatch, "slower", [1.06] * 5)
    assert compare_nodes("x", [steady], [slower]).outcome == "worse"
    # Each repeat's own samples are sure of it; that the next repeat differs by as much, they do not know.
    shaky = repeated(monkeypatch, "shaky", [0.94, 1.06, 1.18, 0.96, 1.16])
    assert compare_nodes("x", [steady], [shaky]).outcome == "within noise"
    (qps,) = [change for change in compare_nodes("x", [steady], [shaky]).changes if change.metric == "qps"]
    assert qps.after == pytest.approx(
        geometric_mean([one.metrics.qps for one in shaky.repeats if one.metrics and one.metrics.qps])
    )


def test_of_two_repeats_the_samples_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (repeated(monkeypatch, name, [slow] * 2) for name, slow in (("b", 1.0), ("a", 1.06)))
    alone = compare_nodes("x", [replace(before, repeats=())], [replace(after, repeats=())])
    assert compare_nodes("x", [before], [after]) == alone


def test_a_sure_trifle_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {**ENGINE, "spread": 0.0001}
    before, after = (samples(monkeypatch, "1", 100, slowdown, **exact) for slowdown in (1, 1.01))
    group = changed(before, after)
    qps = next(change for change in group.changes if change.metric == "qps")
    assert qps.low is not None
    assert qps.high is not None
    assert qps.high < 0
    assert changed(after, before).outcome == "within noise"
    assert group.outcome == "within noise"
    assert compare_nodes("x", [loaded(before)], [loaded(after)], floor=0.005).outcome == "worse"
    assert compare_nodes("x", [loaded(after)], [loaded(before)], floor=0.005).outcome == "better"


def test_percentiles_are_judged_where_there_are_enough_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (
        changed(samples(monkeypatch, "1", count, **ENGINE), samples(monkeypatch, "2", count, slowdown=1.2, **ENGINE))
        for count in (100, 700)
    )
    outcomes = [next(c for c in group.changes if c.metric == "latency_ms.p99") for group in (few, many)]
    assert (outcomes[0].outcome, outcomes[0].note) == ("not judged", "100 samples, 662 needed")
    assert outcomes[1].outcome == "worse"


def test_other_hardware_is_shown_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    each = samples(monkeypatch, "1", 20, **ENGINE)
    add_run(tmp_path, "a", {"jw2": each}, environment=A30)
    add_run(tmp_path, "b", {"jw2": each}, environment=H100)
    comparison = compare(load_side(tmp_path / "a"), load_side(tmp_path / "b"))
    assert (comparison.groups, comparison.refused, comparison.outcome) == ((), (), "not judged")
    (reported,) = comparison.apart
    assert "1 x NVIDIA A30" in reported
    assert "1 x NVIDIA H100" in reported
    assert main(["compare", "a", "b", "--results-dir", str(tmp_path)]) == 2
    assert "NOT COMPARED" in capsys.readouterr().out


def test_other_settings_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    each = samples(monkeypatch, "1", 20, **ENGINE)
    add_run(tmp_path, "a", {"jw2": each})
    add_run(tmp_path, "b", {"jw2": each}, {"benchmark_dtype": "bfloat16"})
    assert main(["compare", "a", "b", "--results-dir", str(tmp_path)]) == 2
    reported = " ".join(capsys.readouterr().out.split())
    assert "measured differently in a: dtype is bfloat16 instead of float16" in reported
    assert "Of node:" not in reported, "a legend of no table"


def test_profiles_that_differ_are_told_apart_by_their_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("a", 20), ("b", 10)):
        add_run(tmp_path, name, {"jw2": samples(monkeypatch, "1", count, **ENGINE)})
    assert main(["compare", "a", "b", "--results-dir", str(tmp_path)]) == 2
    reported = " ".join(capsys.readouterr().out.split())
    assert "measured differently in a: the profile's samples is 10 instead of 20" in reported
    assert "sha256" not in reported


def test_what_decides_only_the_verdict_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = samples(monkeypatch, "1", 20, **ENGINE)
    add_run(tmp_path, "a", {"jw2": each})
    add_run(tmp_path, "b", {"jw2": each}, {"benchmark_timeout_s": 60})
    assert compare(load_side(tmp_path / "a"), load_side(tmp_path / "b")).outcome == "no difference"


def test_nodes_of_a_run_and_nodes_that_only_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = (samples(monkeypatch, str(s), 40, s, **ENGINE) for s in (1, 1.5))
    add_run(tmp_path, "a", {"jw2": fast, "jw3": slow})
    add_run(tmp_path, "b", {"jw2": fast, "jw4": slow})
    nodes = compare(load_side(tmp_path / "a", "jw2"), load_side(tmp_path / "a", "jw3"))
    assert nodes.outcome == "worse"
    assert nodes.groups[0].note == "different nodes"
    both = compare(load_side(tmp_path / "a"), load_side(tmp_path / "b"))
    assert both.outcome == "no difference"
    assert (both.groups[0].nodes, both.groups[0].note) == (("jw2",), "only the 1 node that is in both")


@pytest.mark.parametrize("name", ["c", "a/jw9", "", "../a/x"])
def test_a_run_that_is_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, "a", {"jw2": samples(monkeypatch, "1", 3, **ENGINE)})
    assert main(["compare", name, "a", "--results-dir", str(tmp_path)]) == 2
    assert main(["compare", "a/jw2", "latest/jw2", "--results-dir", str(tmp_path)]) == 0


def test_text_fits_and_markdown_has_the_same_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, "a", {"jw2": samples(monkeypatch, "1", 40, **ENGINE)})
    add_run(tmp_path, "b", {"jw2": samples(monkeypatch, "2", 40, 1.1, **ENGINE)})
    comparison = compare(load_side(tmp_path / "a"), load_side(tmp_path / "b"))
    text = render_text(comparison)
    assert all(columns(line) <= WIDTH for line in text.splitlines())
    assert "WORSE: QPS -" in text
    table = cells(render_markdown(comparison))
    assert table[0] == list(HEADS)
    assert [row[0] for row in table[1:3]] == ["QPS", "tokens/s"]
    assert all(row[1] in text for row in table)


def test_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, "a", {"jw2": samples(monkeypatch, "1", 40, **ENGINE)})
    add_run(tmp_path, "b", {"jw2": samples(monkeypatch, "2", 40, 1.1, **ENGINE)})
    add_run(tmp_path, "c", {"jw2": samples(monkeypatch, "2", 40, 1.1, **ENGINE)}, {"benchmark_dtype": "bfloat16"})
    here = ["--results-dir", str(tmp_path)]
    assert main(["compare", "b", *here]) == 2
    assert "There is no baseline 'default'" in capsys.readouterr().err
    assert main(["baseline", "set", "a", *here]) == 0
    assert main(["baseline", "set", "c", *here]) == 0  # another comparison key: it stands beside the first
    assert main(["baseline", "set", "b", "--name", "driver-580", *here]) == 0
    capsys.readouterr()
    assert main(["baseline", "show", *here]) == 0
    assert [line.split(" for ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "default: a", "default: c", "driver-580: b",
    ]  # fmt: skip
    assert main(["compare", "b", "--json", *here]) == 1
    reported = json.loads(capsys.readouterr().out)
    assert (reported["before"], reported["after"], reported["outcome"]) == ("a", "b", "worse")
    capsys.readouterr()
    assert main(["compare", "b", "--baseline", "driver-580", *here]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(tmp_path / "b"), "b", *here]) == 0
    itself = "b was compared with itself, so that equality says nothing."
    assert itself in " ".join(capsys.readouterr().out.split())
    assert "b is its own baseline for quick v4, float16, continuous, 1 x NVIDIA A30." in said
    assert said.endswith("b is its own baseline, so that equality says nothing.")
    # One kind goes by its key or its run, and the other stays.
    assert main(["baseline", "clear", "x", *here]) == 2
    assert "'x' is not a baseline under the name 'default'; there are: " in capsys.readouterr().err
    assert main(["baseline", "show", *here]) == 0
    key = capsys.readouterr().out.splitlines()[0].rpartition(" ")[2]
    assert main(["baseline", "clear", key, *here]) == 0
    assert capsys.readouterr().out.startswith("default: cleared a for quick v4, float16")
    assert main(["compare", "c", *here]) == 0
    assert main(["compare", "b", *here]) == 2
    assert main(["baseline", "set", "a", *here]) == 0
    assert main(["baseline", "clear", "a", *here]) == 0
    assert main(["compare", "c", *here]) == 0
    assert main(["baseline", "clear", *here]) == 0
    assert main(["compare", "b", *here]) == 2
    (tmp_path / "baselines.json").write_text("{")
    assert main(["compare", "b", *here]) == 2
    assert "not JSON" in capsys.readouterr().err


def test_the_ci_page_has_the_change_against_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, slowdown in (("a", 1), ("b", 1.3)):
        add_run(tmp_path, run_id, {"jw2": samples(monkeypatch, run_id, 40, slowdown, **ENGINE)})
    page = tmp_path / "page.md"

    def reported(run_id: str) -> str:
        main(["aggregate", str(tmp_path / run_id), "--markdown", str(page)])
        return page.read_text()

    assert "Against the baseline" not in reported("b")
    assert main(["baseline", "set", "a", "--results-dir", str(tmp_path)]) == 0
    assert "Against the baseline" not in reported("a")
    assert "WORSE: QPS -2" in reported("b")
    rows = cells(reported("b"))
    assert list(HEADS) in rows
    assert any(row[0] == "QPS" and row[6] == "worse" for row in rows if len(row) == len(HEADS))
    (tmp_path / "baselines.json").write_text("{")
    assert "not JSON" in reported("b")


def test_one_node_of_many_that_became_slow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(8)]
    add_run(tmp_path, "a", {name: samples(monkeypatch, f"a{name}", 30, **ENGINE) for name in names})
    after = {name: samples(monkeypatch, f"b{name}", 30, 1.15 if name == "n5" else 1, **ENGINE) for name in names}
    add_run(tmp_path, "b", after)
    comparison = compare(load_side(tmp_path / "a"), load_side(tmp_path / "b"))
    (group,) = comparison.groups
    assert next(c for c in group.changes if c.metric == "qps").outcome == "within noise"
    assert {(one.node, one.outcome) for one in group.each} == {("n5", "worse")}
    assert comparison.outcome == "worse"
    text = render_text(comparison)
    assert "WORSE: n5 alone." in text
    assert "n5: QPS -1" in text
    assert "n5: QPS" in render_markdown(comparison)
    assert all(columns(line) <= WIDTH for line in text.splitlines())
    assert compare(load_side(tmp_path / "a"), load_side(tmp_path / "a")).groups[0].each == ()
