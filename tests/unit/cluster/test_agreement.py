"""Nodes that are alike must give the same greedy tokens."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.agreement import first_difference
from benchmark.cluster.render.summary import render_cluster
from benchmark.records import Accuracy, ClusterResult, DatasetInfo
from benchmark.rundir import read_run
from tests.unit.building import HOST, add_node, asked, make_run

PROFILE: dict[str, Any] = {"accuracy": "with-performance", "greedy_prompts": 2}
LATENCIES = [1700.0, 1800.0, 1900.0]


def cluster(
    directory: Path,
    tokens: dict[str, dict[str, list[int]]],
    torch: dict[str, str] | None = None,
    served: Mapping[str, dict[str, str]] = MappingProxyType({}),
) -> ClusterResult:
    resolved = asked(3, PROFILE)
    make_run(directory, dict.fromkeys(tokens, resolved))
    for node, greedy in tokens.items():
        packages = {"torch": (torch or {}).get(node, "2.13.0")}
        add_node(
            directory,
            node,
            resolved,
            LATENCIES,
            accuracy=Accuracy.model_validate({"greedy": greedy}),
            environment=HOST.model_copy(update={"packages": packages, "server_packages": served.get(node, {})}),
            dataset=DatasetInfo(name="curated", prompts=20, sha256="ab" * 32),
        )
    return aggregate(directory)


SAME = {"explain": [1, 2, 3], "code": [4, 5]}


def test_nodes_that_agree(tmp_path: Path) -> None:
    result = cluster(tmp_path, {"jw2": SAME, "jw3": SAME})
    (agreement,) = result.agreements
    assert (agreement.nodes, agreement.prompts, agreement.disagreements) == (("jw2", "jw3"), 2, ())
    assert result.verdict.valid
    text = render_cluster(result, read_run(tmp_path))
    assert "Agreement   2 of 2 like nodes give the same greedy tokens (2 prompts)" in text


def test_the_order_of_packages_is_no_difference(tmp_path: Path) -> None:
    served = {"vllm": "0.32.0", "torch": "2.13.0"}
    result = cluster(tmp_path, {"jw2": SAME, "jw3": SAME}, None, {"jw2": served, "jw3": dict(reversed(served.items()))})
    assert len(result.agreements) == 1


def test_a_query_that_failed_is_no_other_answer(tmp_path: Path) -> None:
    result = cluster(tmp_path, {"jw2": SAME, "jw3": {"explain": [1, 2, 3]}})
    assert result.agreements[0].disagreements == ()


def test_the_one_that_differs_from_most_is_named(tmp_path: Path) -> None:
    other = {"explain": [1, 2, 3], "code": [4, 6]}
    result = cluster(tmp_path, {"jw1": other, "jw2": SAME, "jw3": SAME})
    (named,) = result.agreements[0].disagreements
    assert (named.node, named.prompt, named.position, named.others) == ("jw1", "code", 1, ("jw2", "jw3"))
    assert not result.verdict.valid
    assert result.verdict.reasons == ("jw1 gives other greedy tokens than jw2, jw3: prompt code, from token 2 on.",)


@pytest.mark.parametrize("torch", [{"jw3": "2.12.0"}, {"jw2": "2.12.0"}])
def test_nodes_with_other_software_are_not_compared(tmp_path: Path, torch: dict[str, str]) -> None:
    result = cluster(tmp_path, {"jw2": SAME, "jw3": {"explain": [9], "code": [9]}}, torch)
    assert result.agreements == ()
    assert result.verdict.valid


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_the_first_difference_by_its_definition(one: list[int], other: list[int]) -> None:
    position = first_difference(tuple(one), tuple(other))
    assert one[:position] == other[:position]
    assert one == other or one[position : position + 1] != other[position : position + 1]
