"""What a million tokens cost: by hand, by property, and in everything that a run leaves."""

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.show import render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.cost import cost_of, cost_together
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.run_verdict import run_verdict
from benchmark.columns import Columns
from benchmark.errors import InputError
from benchmark.metrics import compute
from benchmark.records import EngineInfo, Metrics
from benchmark.settings import check_settings
from tests.unit.building import GPU, HOST, add_node, asked, closed_loop, failed, make_run

THREE = [1000.0, 1000.0, 1000.0]
FOUR = HOST.model_copy(update={"gpus": tuple(GPU.model_copy(update={"index": i}) for i in range(4))})


def measured(latencies: list[float]) -> Metrics:
    return compute(Columns.of(closed_loop(latencies)), len(latencies))


def priced(directory: Path, **prices: float | None) -> Path:
    """Write a run whose nodes have these prices; None: without one."""
    settings = {node: {"benchmark_cost_per_gpu_hour": price} if price else {} for node, price in prices.items()}
    nodes = {node: asked(3, None, **given) for node, given in settings.items()}
    make_run(directory, nodes)
    for node, resolved in nodes.items():
        add_node(directory, node, resolved, THREE)
    return directory


def words(text: str) -> str:
    return " ".join(text.split())


def test_cost_by_hand(tmp_path: Path) -> None:
    """Four GPUs at 2.50 an hour that give 192 tokens, and read 90, in 2.9999 s."""
    resolved = asked(3, benchmark_cost_per_gpu_hour=2.5, benchmark_target_qps=0.125)
    make_run(tmp_path, {"jw2": resolved})
    engine = EngineInfo(name="continuous", replicas=4)
    add_node(tmp_path, "jw2", resolved, THREE, environment=FOUR, engine=engine)
    (row,) = gather(tmp_path).result.nodes
    cost = row.cost
    assert cost is not None
    assert cost.per_hour == 10
    assert cost.per_million_output_tokens == pytest.approx(10 / 3600 * 2.9999 / 192 * 1e6)
    assert cost.per_million_input_tokens == pytest.approx(10 / 3600 * 2.9999 / 90 * 1e6)


@given(st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(60, 1e5)), min_size=1, max_size=6))
def test_together_lies_between_cheapest_and_dearest(nodes: list[tuple[float, float]]) -> None:
    each = [(cost_of(price, "USD", m), m) for price, latency in nodes for m in [measured([latency])]]
    total = cost_together(each)
    assert total is not None
    own = [cost.per_million_output_tokens or 0 for cost, _ in each if cost]
    assert min(own) * (1 - 1e-9) <= (total.per_million_output_tokens or 0) <= max(own) * (1 + 1e-9)
    assert total.per_hour == pytest.approx(sum(price for price, _ in nodes))
    # Without one of the prices it is no cost of all.
    assert cost_together([*each, (None, measured([100.0]))]) is None
    other = cost_of(1, "EUR", measured([100.0]))
    assert cost_together([*each, (other, measured([100.0]))]) is None


def test_without_a_token_only_the_hour_has_a_price() -> None:
    cost = cost_of(3, "USD", compute(Columns.of([failed(0)]), 1))
    assert cost is not None
    assert (cost.per_hour, cost.per_million_output_tokens, cost.per_million_input_tokens) == (3, None, None)
    assert cost_of(0, "USD", measured(THREE)) is None


def test_cost_stands_in_all_that_a_run_leaves(tmp_path: Path) -> None:
    gathered = gather(priced(tmp_path, jw2=1.0, jw3=4.0))
    run, result = gathered.run, gathered.result
    (group,) = result.groups
    own = 1 / 3600 * 2.9999 / 192 * 1e6
    assert group.cost is not None
    assert group.cost.per_million_output_tokens == pytest.approx(2.5 * own)  # 5 an hour for twice the tokens
    summary = words(render_cluster(result, run))
    assert "Cost USD 10.9 per million output tokens, or 23.1 per million input tokens (USD 5.00 an hour)" in summary
    assert "output from USD 4.34 on jw2 to 17.4 on jw3" in summary
    page = words(render_report(gathered, tmp_path))
    assert "<h2>Energy and cost</h2>" in page
    assert "USD 4.34" in page
    rows = list(csv.DictReader(render_node_table(gathered).splitlines()))
    assert [float(row["cost_per_million_output_tokens"]) for row in rows] == pytest.approx([own, 4 * own])
    assert {row["cost_currency"] for row in rows} == {"USD"}
    lines = [line for line in prometheus_lines([whole(run, result)]) if "cost_per_million_output_tokens{" in line]
    assert [float(line.split()[-1]) for line in lines] == pytest.approx([own, 4 * own])
    assert all('currency="USD"' in line for line in lines)
    assert run_verdict(Outcome(run, result), tmp_path, "report.html").figures[0].cost == group.cost


def test_a_node_without_a_price_leaves_no_total(tmp_path: Path) -> None:
    gathered = gather(priced(tmp_path, jw2=1.0, jw3=None))
    (group,) = gathered.result.groups
    assert group.cost is None
    summary = words(render_cluster(gathered.result, gathered.run))
    assert "Cost no total cost: jw3 has no price (benchmark_cost_per_gpu_hour)" in summary
    assert "jw2: USD 4.34 per million output tokens" in summary
    page = words(render_report(gathered, tmp_path))
    assert "USD 4.34" in page


@pytest.mark.parametrize("settings", [{}, {"benchmark_device": "cpu", "benchmark_cost_per_gpu_hour": 2}])
def test_without_a_price_or_a_gpu_there_is_no_column(settings: dict[str, Any], tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3, **settings)})
    add_node(tmp_path, "jw2", asked(3, **settings), THREE)
    gathered = gather(tmp_path)
    assert aggregate(tmp_path).counted == 1
    assert "cost" not in render_node_table(gathered).splitlines()[0]
    assert "Cost" not in render_cluster(gathered.result, gathered.run)
    assert "cost" not in "".join(prometheus_lines([whole(gathered.run, gathered.result)]))
    side = load_side(tmp_path)
    assert "cost" not in render_text(compare(side, side))


def test_compare_shows_cost_and_judges_it_not(tmp_path: Path) -> None:
    before, after = (load_side(priced(tmp_path / name, jw2=price)) for name, price in (("a", 1.0), ("b", 2.0)))
    text = words(render_text(compare(before, after)))
    assert "cost of 1M output tokens USD all 4.34 8.68 +100.0% - follows tokens/s and the price" in text
    assert compare(before, after).outcome != "worse"
    assert "not every node has a price" in words(
        render_text(compare(load_side(priced(tmp_path / "c", jw2=None)), after))
    )


@pytest.mark.parametrize("wrong", [{"benchmark_cost_per_gpu_hour": -1}, {"benchmark_cost_per_gpu_hour": "nan"}])
def test_a_price_is_a_number_from_zero_on(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="benchmark_cost_per_gpu_hour"):
        check_settings(wrong)


@pytest.mark.parametrize("word", ["", "U S D", "=1+1", "dollars-and-cents", "<b>"])
def test_a_currency_is_a_word_or_a_sign(word: str) -> None:
    with pytest.raises(InputError, match="benchmark_currency"):
        check_settings({"benchmark_currency": word})
    assert check_settings({"benchmark_currency": "€"}).benchmark_currency == "€"
