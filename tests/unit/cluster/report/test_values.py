"""What the report computes: numbers, curves, ranks, what to look at first, colours."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import gather
from benchmark.cluster.report import sections
from benchmark.cluster.report.amounts import amount, median, share
from benchmark.cluster.report.distributions import distributions, ecdf
from benchmark.cluster.report.headline import BAD, FINE, advice, verdict_words
from benchmark.cluster.report.parts import MOST_COLOURED, node_groups
from benchmark.cluster.report.repeating import MOST_DOTS, repeating
from benchmark.cluster.report.templating import TEMPLATES
from benchmark.cluster.report.timeline import aligned
from benchmark.loadgen_log import read_limits
from benchmark.metrics import PERCENTILES, percentile
from benchmark.records import EngineInfo, ReadyNode, RepeatRow, Repeats, Window
from tests.unit.building import MS, START_NS, add_node, asked, make_run
from tests.unit.cluster.report import runs


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0.00"),
        (0.0042, "0.0042"),
        (0.5649, "0.56"),
        (35.94, "35.9"),
        (1_004_312.4, "1,004,312"),
        (-12.3, "\N{MINUS SIGN}12.3"),
        (2e18, "2e+18"),
    ],
)
def test_numbers_have_the_digits_that_a_reader_can_use(value: float | None, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0%"), (-0.0001, "0.0%"), (0.028, "+2.8%"), (-0.107, "\N{MINUS SIGN}11%"), (None, "-"), (12.0, "+1,200%")],
)
def test_changes_have_a_sign(value: float | None, text: str) -> None:
    assert share(value) == text


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60))
def test_the_median_halves(values: list[float]) -> None:
    middle = median(values)
    assert middle is not None
    assert sum(value <= middle for value in values) * 2 >= len(values)
    assert sum(value >= middle for value in values) * 2 >= len(values)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500), st.integers(10, 80))
def test_a_curve_goes_through_measured_values(values: list[float], most: int) -> None:
    ordered = sorted(values)
    curve = ecdf(ordered, most)
    assert len(curve) <= most + len(PERCENTILES) + 2
    for value, part in curve:
        assert ordered[round(part * len(ordered)) - 1] == value
    assert [part for _, part in curve] == sorted({part for _, part in curve})
    assert curve[0][0] == ordered[0]
    assert curve[-1] == (ordered[-1], 1.0)
    assert {percentile(ordered, part) for part in PERCENTILES.values()} <= {value for value, _ in curve}
    if len(ordered) <= most:
        assert len(curve) == len(ordered)


def test_few_nodes_have_a_colour_each_and_of_many_the_slow_ones(tmp_path: Path) -> None:
    for count in (2, MOST_COLOURED, 20):
        run_dir = runs.cluster(tmp_path / str(count), count)
        gathered = gather(run_dir)
        (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
        marked = set(like.marked)
        assert marked == (set(runs.names(count)) if count <= MOST_COLOURED else {runs.SLOW})
        assert len(like.crowd) == count - len(marked)
        qps = [node.metrics.qps for node in like.nodes if node.metrics and node.metrics.qps]
        assert qps == sorted(qps, reverse=True)


def test_unlike_nodes_are_in_charts_of_their_own(tmp_path: Path) -> None:
    given_settings = {"jw2": asked(3), "jw3": asked(3, benchmark_dtype="bfloat16")}
    make_run(tmp_path, given_settings)
    for node, resolved in given_settings.items():
        add_node(tmp_path, node, resolved, [1700.0] * 3)
    gathered = gather(tmp_path)
    groups = node_groups(tmp_path, gathered.result, gathered.nodes)
    assert [[node.node for node in like.nodes] for like in groups] == [["jw3"], ["jw2"]]
    assert all(len(distributions(like)) == 3 for like in groups)


def test_nodes_stand_on_one_time_axis_by_the_controllers_clock(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node, offset_ms, late_ms in (("jw2", 0, 0), ("jw3", 5000, 640)):
        started = START_NS + (offset_ms + late_ms) * MS
        window = Window.of(started, started + 5100 * MS)
        place = add_node(tmp_path, node, asked(3), [1700.0] * 3, window=window)
        write = ReadyNode(node=node, launched_unix_ns=0, offset_ns=offset_ms * MS, uncertainty_ns=1, round_trips=7)
        (place / "ready.json").write_text(write.model_dump_json())
    shifts = {node: shift * series.width_ns for node, (series, shift) in aligned(gather(tmp_path).nodes).items()}
    assert shifts == {"jw2": 0, "jw3": 640 * MS}


def test_what_to_look_at_first(tmp_path: Path) -> None:
    fine = gather(runs.cluster(tmp_path / "fine", 2)).result
    assert [(one.weight, one.title) for one in advice(fine)] == [(FINE, "Nothing stands out")]
    slow = gather(runs.cluster(tmp_path / "slow", 9)).result
    assert advice(fine)[0].text.startswith("Every node of the run is counted and valid, and none was found to be slow")
    first, second = advice(slow)[:2]
    assert (first.weight, first.title) == (BAD, "gpu-007 is slow")
    assert "different values of driver" in second.text
    failed = gather(runs.partly_failed(tmp_path / "failed")).result
    assert [one.title for one in advice(failed)][:2] == ["jw4 is not counted", "jw3 is invalid"]
    ended = failed.model_copy(update={"partial": "It was stopped by Ctrl-C."})
    assert advice(ended)[0].text == "It was stopped by Ctrl-C."


def test_enough_nodes_are_valid_and_the_others_are_named(tmp_path: Path) -> None:
    lenient = asked(3, benchmark_min_nodes="50%")
    make_run(tmp_path, {"jw2": lenient, "jw3": lenient})
    add_node(tmp_path, "jw2", lenient, [1700.0] * 3)
    words = verdict_words(gather(tmp_path).result)
    assert words.startswith("1 of 2 nodes are counted and valid, which is enough for benchmark_min_nodes.")


def test_of_many_repeats_the_extremes_are_drawn(tmp_path: Path) -> None:
    run_dir = runs.cluster(tmp_path, 2, measured_often=True)
    gathered = gather(run_dir)
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    values = tuple(1 + 0.001 * number for number in range(MOST_DOTS))
    changes = {"values": values, "lowest": values[0], "highest": values[-1]}
    many = tuple(one.model_copy(update=changes) for one in like.rows["jw2"].spread)
    rows = {name: row.model_copy(update={"spread": many}) for name, row in like.rows.items()}
    numbers = [RepeatRow(number=number, value=1, valid=2) for number in range(1, MOST_DOTS + 1)]
    reported = repeating(replace(like, rows=rows), Repeats(chosen=7, metric="qps", rows=tuple(numbers)))
    assert reported is not None
    drawn = re.findall(r'data-series="repeat-([0-9]+):jw2"', reported.chart.wide)
    assert sorted(map(int, drawn)) == [1, 7, MOST_DOTS]
    assert "the lowest and the highest of the others" in reported.chart.note
    assert len(reported.deciding.rows[0]) == len(reported.deciding.heads) == MOST_DOTS + 3


def test_loadgens_limits_come_from_its_log(tmp_path: Path) -> None:
    line = ':::MLLOG {{"key": "{}", "value": {}, "metadata": {{"is_error": false}}}}\n'
    reported = [("requested_server_ttft_latency", 2_000_000_000), ("requested_server_tpot_latency", 0), ("other", 5)]
    (tmp_path / "mlperf_log_detail.txt").write_text("".join(line.format(*each) for each in reported))
    assert read_limits(tmp_path) == {"ttft_ms": 2000.0}


# How colours look to those who lack one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1), in linear RGB.
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def palettes() -> dict[str, dict[str, str]]:
    """Return the colours by day and by night, from the style sheet."""
    css = (TEMPLATES / "report.css").read_text()
    day, night = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return {
        "day": dict(re.findall(r"--([\w-]+): (#\w{6})", day)),
        "night": dict(re.findall(r"--([\w-]+): (#\w{6})", night)),
    }


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one: str, other: str) -> float:
    """Return the contrast of WCAG 2."""
    lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(one), linear(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("time", ["day", "night"])
def test_lines_stand_out_from_the_paper_and_text_is_readable(time: str) -> None:
    colours = palettes()[time]
    for name in ("n0", "n1", "n2", "n3", "n4", "n5", "limit"):
        assert contrast(colours[name], colours["paper"]) >= 3, name
    for text, ground in (
        ("ink", "paper"),
        ("soft", "paper"),
        ("soft", "card"),
        ("limit", "paper"),
        ("bad", "bad-card"),
    ):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("time", ["day", "night"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_neighbouring_colours_differ_for_the_colour_blind(time: str, kind: str) -> None:
    colours = palettes()[time]
    seen = {
        name: _lab(
            [max(0.0, sum(w * c for w, c in zip(row, linear(colours[name]), strict=True))) for row in BLINDNESS[kind]]
        )
        for name in ("n0", "n1", "n2", "n3", "n4", "n5")
    }
    for one, other in itertools.combinations(seen, 2):
        distance = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        # Dashes differ too; the first three, which most runs need, have to differ most.
        assert distance > (25 if {one, other} <= {"n0", "n1", "n2"} else 15), (one, other, distance)


def _lab(rgb: list[float]) -> tuple[float, float, float]:
    r, g, b = rgb
    x, y, z = (
        0.4124 * r + 0.3576 * g + 0.1805 * b,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        0.0193 * r + 0.1192 * g + 0.9505 * b,
    )
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x / 0.9505, y, z / 1.089))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def test_the_start_of_each_node_is_told_by_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {name: asked(3) for name in ("jw2", "jw3", "jw4")})
    stages = {
        "jw2": {"imports": 3.25, "weights": 5.0, "since_process_start": 11.5},
        "jw3": {"capture": 1.5, "imports": 3.5, "<b>": 2.0, "weights": "long"},
        "jw4": None,
    }
    for name, seconds in stages.items():
        reported = EngineInfo.model_validate({"name": "sequential", "details": {"startup_s": seconds}})
        add_node(run, name, asked(3), [1000.0] * 3, engine=reported)
    table = sections.starts(gather(run).nodes)
    assert table is not None
    assert table.heads == ("node", "imports", "weights", "capture", "since process start")
    assert list(table.rows) == [("jw2", "3.25", "5.00", "-", "11.5"), ("jw3", "3.50", "-", "1.50", "-")]
    assert sections.starts([]) is None
