"""Answers that are sampled, each by a seed of its own, and greedy ones among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmark.profiles import Generation
from tests.unit.node.continuous.asked import QUERIES, Make, ask


def test_sampling_is_seeded(make: Make) -> None:
    def sampled(seed: int) -> dict[int, tuple[int, ...]]:
        generation = Generation(max_new_tokens=8, min_new_tokens=8, temperature=1.0, seed=seed)
        engine, _ = make(generation)
        return ask(engine, QUERIES[:1]).tokens

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_sampled_answer_depends_on_its_seed_alone(make: Make, one_at_a_time: dict[int, tuple[int, ...]]) -> None:
    generation = Generation(max_new_tokens=8, min_new_tokens=8, temperature=1.0, top_k=40, seed=3)
    mixed = [replace(query, greedy=query.index % 4 == 0) for query in QUERIES]
    engine, _ = make(generation)
    together = ask(engine, mixed).tokens
    again, _ = make(generation, max_batch_tokens=16)
    # One by one, backwards, and after others: neither order nor company counts.
    apart = {index: tokens for query in reversed(mixed) for index, tokens in ask(again, [query]).tokens.items()}
    assert apart == together
    assert {index for index in together if together[index] == one_at_a_time[index]} == set(range(0, len(QUERIES), 4))
    same_prompt = [replace(QUERIES[1], index=number, seed=number) for number in range(8)]
    assert len(set(ask(again, same_prompt).tokens.values())) == 8


@pytest.mark.parametrize(
    "more", [{"temperature": 0.7}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 3, "top_p": 0.9}]
)
def test_a_greedy_query_among_sampled_ones_is_not_sampled(
    make: Make, one_at_a_time: dict[int, tuple[int, ...]], more: dict[str, Any]
) -> None:
    engine, _ = make(Generation(max_new_tokens=8, min_new_tokens=8, **more))
    greedy = range(0, len(QUERIES), 2)
    tokens = ask(engine, [replace(query, greedy=query.index in greedy) for query in QUERIES]).tokens
    assert {index: tokens[index] for index in greedy} == {index: one_at_a_time[index] for index in greedy}
    assert any(tokens[index] != one_at_a_time[index] for index in range(1, len(QUERIES), 2))
