"""A node over earlier runs, in the report."""

from __future__ import annotations

from pathlib import Path

from benchmark.cluster.aggregate import gather
from benchmark.cluster.baseline import against_baseline, set_baseline
from benchmark.cluster.report.page import render_report
from benchmark.cluster.report.parts import node_groups
from benchmark.cluster.report.trend import histories, trend
from tests.unit.building import HOST
from tests.unit.cluster.history.test_history import store


def test_a_shift_is_drawn_at_its_first_run_with_what_differed(tmp_path: Path) -> None:
    runs = [store(tmp_path, 1 + n, {"jw2": 1800.0 + n, "jw3": 1790.0 + n}) for n in range(4)]
    newer = HOST.model_copy(update={"packages": {"torch": "2.14.0"}})
    runs += [store(tmp_path, 10 + n, {"jw2": 2100.0, "jw3": 2100.0}, environment=newer) for n in range(3)]
    run_dir = tmp_path / runs[-1]
    gathered = gather(run_dir)
    known = histories(run_dir)
    assert sorted(known) == ["jw2", "jw3"]
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    found = trend(like, known)
    assert found is not None
    assert [row[0] for row in found.charts[0].tables[0].rows] == runs
    assert found.charts[0].tables[0].rows[0][1:] == ("0.56", "0.56", "0.56")
    assert {(one.node, one.run_id) for one in found.since} == {("jw2", runs[4]), ("jw3", runs[4])}
    assert any("QPS \N{MINUS SIGN}14%, 0.56 to 0.48: worse" in words for words in found.since[0].shifts)
    page = render_report(gathered, run_dir)
    assert "What differed: packages.torch: not installed -&gt; 2.14.0" in page
    assert 'data-series="shift:jw2"' in page
    # A run's report does not tell of later ones.
    earlier = tmp_path / runs[2]
    assert [point.run_id for point in histories(earlier)["jw2"].points] == runs[:3]


def test_a_first_run_has_no_history(tmp_path: Path) -> None:
    run_dir = tmp_path / store(tmp_path, 1, {"jw2": 1800.0})
    assert histories(run_dir) == {}
    assert "There is no earlier run" in render_report(gather(run_dir), run_dir)


def test_the_change_against_the_baseline_stands_in_the_page(tmp_path: Path) -> None:
    before, after = store(tmp_path, 1, {"jw2": 1800.0}), store(tmp_path, 2, {"jw2": 2100.0})
    set_baseline(tmp_path / before)
    run_dir = tmp_path / after
    gathered = gather(run_dir)
    page = render_report(gathered, run_dir, against_baseline(run_dir, gathered.nodes))
    assert "Against the baseline" in page
    assert "WORSE:" in page
    assert f"(from {before})" in page
