"""Two sweeps against each other: how much more a GPU gives where each user gets as much."""

import random
from pathlib import Path

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.curves import shared_places
from benchmark.cluster.comparison.show import render_markdown, render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.export.tables import curves_of
from benchmark.curves import between
from benchmark.text.columns import WIDTH
from tests.unit.building import make_run
from tests.unit.queues import S, queue, sweeping, write_sweep

LADDER = (1, 2, 4, 8, 16)


def store(directory: Path, pace: float, seed: int) -> Path:
    """Write a run whose answers become slower the more there are at once: no queue, as with batches of a GPU."""
    resolved, chance = sweeping(LADDER), random.Random(seed)
    run_dir = make_run(directory, dict.fromkeys(("jw2", "jw3"), resolved))
    for node in ("jw2", "jw3"):
        steps = {}
        for users in LADDER:
            service_s = 2 * (1 + users / 8) / pace
            services = [int(chance.uniform(0.98, 1.02) * service_s * S) for _ in range(40 * users)]
            steps[users] = queue(users, users, services)
        write_sweep(run_dir, node, resolved, steps)
    return run_dir


def test_a_faster_run_gives_more_where_users_get_as_much(tmp_path: Path) -> None:
    before, after = store(tmp_path / "a", 1.0, 1), store(tmp_path / "b", 1.18, 2)
    found = compare(load_side(before), load_side(after))
    (group,) = found.groups
    curves = []
    for run_dir in (before, after):
        result = gather(run_dir).result
        assert result.sweep is not None
        curves.append([(p.tokens_per_s_per_user, p.tokens_per_s_per_gpu) for p in result.sweep.curves[0].points])
    assert len(group.curve) >= 2
    for one in group.curve:
        was, now = (between(curve, one.tokens_per_s_per_user) for curve in curves)
        assert (one.before, one.after) == (was, now)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.change <= one.high
        assert one.outcome == "better"
    text = render_text(found)
    assert max(map(len, text.splitlines())) <= WIDTH
    one = group.curve[0]
    words = f"{one.change:.1%} more tokens/s of a GPU at {one.tokens_per_s_per_user:g} tokens/s per user"
    assert words in " ".join(text.split())
    assert words in render_markdown(found)
    # Every other change is of one step of both.
    qps = next(change for change in group.changes if change.metric == "qps")
    assert qps.change == pytest.approx(0.18, abs=0.02)


def test_two_runs_of_the_same_are_within_noise(tmp_path: Path) -> None:
    before, after = store(tmp_path / "a", 1.0, 1), store(tmp_path / "b", 1.0, 2)
    (group,) = compare(load_side(before), load_side(after)).groups
    assert group.curve
    assert {one.outcome for one in group.curve} <= {"within noise", "no difference", "not judged"}


def test_only_what_both_curves_reach_is_compared() -> None:
    assert shared_places([(10.0, 1.0), (40.0, 2.0)], [(25.0, 1.0), (90.0, 2.0)]) == [30.0, 40.0]
    assert shared_places([(10.0, 1.0), (20.0, 2.0)], [(25.0, 1.0), (90.0, 2.0)]) == []
    assert shared_places([(None, 1.0)], [(25.0, 1.0)]) == []


def test_every_step_is_exported(tmp_path: Path) -> None:
    gathered = gather(store(tmp_path, 1.0, 1))
    assert gathered.result.sweep is not None
    table = curves_of(gathered)
    rows = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    assert [(row["of"], row["step"]) for row in rows if row["kind"] == "node"] == [
        (node, step) for node in ("jw2", "jw3") for step in LADDER
    ]
    assert not [head for head in table.heads if head.startswith(("cost", "goodput"))], "nobody has a price, or limits"
    lines = "".join(prometheus_lines([whole(gathered.run, gathered.result)])).splitlines()
    found = [line for line in lines if "_sweep_output_tokens_per_second_per_user{" in line]
    assert len(found) == 2 * len(LADDER)
    point = gathered.result.sweep.curves[1].points[3]
    (line,) = [line for line in found if 'node="jw2"' in line and 'concurrency="8"' in line]
    assert float(line.split()[-1]) == point.tokens_per_s_per_user
