"""The curves of a sweep in the report: each node's, drawn where its figures are."""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.report.curves import curved
from benchmark.cluster.report.page import render_report
from benchmark.cluster.report.parts import node_groups
from tests.unit.building import make_run
from tests.unit.queues import LADDER, S, queue, sweeping, write_sweep


def drawn(svg: str, name: str) -> list[tuple[float, float]]:
    """Turn the pixels of a series back into its values."""
    (axes,) = json.loads(html.unescape(re.findall(r'data-axes="([^"]*)"', svg)[0]))
    path = re.search(rf'data-series="{name}">\s*<path d="([^"]*)"', svg)
    assert path is not None, name

    def across(pixel: float, low: str, high: str, axis: str) -> float:
        first, last = axes[axis]
        return float(first + (pixel - axes[low]) / (axes[high] - axes[low]) * (last - first))

    pairs = re.findall(r"[ML] ?([-0-9.]+) ([-0-9.]+)", path[1])
    return [(across(float(x), "left", "right", "x"), across(float(y), "bottom", "top", "y")) for x, y in pairs]


def test_each_nodes_curve_is_drawn_where_its_figures_are(tmp_path: Path) -> None:
    # One of seven is slow: it has a colour of its own, the others are one crowd.
    resolved, chance = sweeping(), random.Random(1)
    paces = dict.fromkeys((f"jw{number}" for number in range(1, 8)), 1.0) | {"jw4": 1.2}
    run_dir = make_run(tmp_path, dict.fromkeys(paces, resolved))
    for node, pace in paces.items():
        services = [int(pace * chance.uniform(0.97, 1.03) * S) for _ in range(20 * LADDER[-1])]
        write_sweep(run_dir, node, resolved, {users: queue(users, 6, services[: users * 20]) for users in LADDER})
    gathered = gather(run_dir)
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    assert list(like.marked)[:1] == ["jw4"]
    found = curved(like, gathered.result.sweep)
    assert found is not None
    assert gathered.result.sweep is not None
    for curve in gathered.result.sweep.curves:
        if curve.kind == "node":
            wanted = [(point.tokens_per_s_per_user, point.tokens_per_s_per_gpu) for point in curve.points]
            for svg in (found.chart.wide, found.chart.narrow):
                assert drawn(str(svg), f"curve:{curve.of}") == [pytest.approx(pair, rel=0.01) for pair in wanted]
    assert re.findall(r'data-series="steps:([^"]*)"', str(found.chart.wide)) == list(like.marked)
    assert [row[0].strip("+*!") for row in found.together.rows] == [str(step) for step in LADDER]
    page = render_report(gathered, run_dir)
    assert 'href="#curves"' in page
    assert "are of this step, the lowest load with nearly the highest tokens/s" in page


def test_a_run_without_a_ladder_has_no_curves(tmp_path: Path) -> None:
    resolved = sweeping((1,))
    run_dir = make_run(tmp_path, {"jw2": resolved})
    write_sweep(run_dir, "jw2", resolved, {1: queue(1, 1, [S] * 4)})
    gathered = gather(run_dir)
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    assert curved(like, None) is None
    # Of one step there is a point, and nothing is said of a knee.
    assert curved(like, gathered.result.sweep) is not None
    assert gathered.result.sweep is not None
    assert gathered.result.sweep.curves[0].knee is None


def test_axes_begin_near_their_values_and_labels_lie_apart(tmp_path: Path) -> None:
    ladder = (48, 52, 56, 60, 64)
    resolved = sweeping(ladder)
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), resolved))
    for node in ("jw2", "jw3"):
        steps = {users: queue(users, 500, [int((1.8 + 0.002 * users) * S)] * users * 6) for users in ladder}
        write_sweep(run_dir, node, resolved, steps)
    gathered = gather(run_dir)
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    found = curved(like, gathered.result.sweep)
    assert found is not None
    for svg in (str(found.chart.wide), str(found.chart.narrow)):
        (axes,) = json.loads(html.unescape(re.findall(r'data-axes="([^"]*)"', svg)[0]))
        for points, (low, high) in zip(zip(*drawn(svg, "curve:jw2"), strict=True), (axes["x"], axes["y"]), strict=True):
            assert min(points) - low < high - low < 2 * (max(points) - min(points))
        texts = [text for text in re.findall(r">([^<>]+)</text>", svg) if text in ("48", "52", "56", "60", "64")]
        assert len(texts) == len(set(texts)) >= 4
