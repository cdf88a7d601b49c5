"""For which numbers of tokens and requests a step is recorded."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from benchmark.continuous_options import Options
from benchmark.node.continuous import graphs


@given(st.integers(1, 20_000))
def test_little_of_a_padded_step_is_padding(most: int) -> None:
    found = graphs.sizes(most)
    assert found == sorted(set(found))
    assert found[-1] == most
    for below, size in itertools.pairwise(found):
        assert size - below <= max(graphs.LEAST // 4, below / graphs.PER_DOUBLING)


@given(st.integers(1, 5_000))
def test_requests_are_padded_to_twice_as_many_at_most(most: int) -> None:
    found = graphs.request_counts(most)
    assert found[-1] == most
    assert all(count <= 2 * below for below, count in itertools.pairwise(found))


def test_nothing_is_recorded_where_there_are_no_graphs() -> None:
    assert graphs.wanted(Options(), "cpu") == 0
    assert graphs.wanted(Options(use_cuda_graph=False), "cuda") == 0
    assert graphs.wanted(Options(graph_tokens=0), "cuda") == 0
    assert graphs.wanted(Options(), "cuda") == graphs.GRAPH_TOKENS
    assert graphs.wanted(Options(graph_tokens=300), "cuda") == 300
