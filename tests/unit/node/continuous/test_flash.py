"""Attention of ours on the paged cache, in the engine: kernels that run on the CPU stand in its place."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from benchmark.node.continuous import attention, layout
from benchmark.profiles import load_profile
from tests.unit.node.continuous.asked import QUERIES, Make, ask


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("options", "in_tables"),
    [
        ({"page_size": 16}, True),
        ({"page_size": 512}, True),
        ({"page_size": 16, "max_blocks_per_request": 4}, True),
        ({"page_size": 16, "max_blocks_per_request": 0}, False),
        ({"page_size": 256, "num_blocks": 32, "max_requests_per_batch": 1}, True),
    ],
    ids=["many pages", "a page each", "some in few pages", "without tables", "as quick has them"],
)
def test_attention_of_ours_reads_and_writes_the_paged_cache(
    make: Make,
    one_at_a_time: dict[int, tuple[int, ...]],
    options: dict[str, Any],
    in_tables: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = Mock(side_effect=layout.answering)
    monkeypatch.setattr(layout, "answering", placed)
    engine, info = make(attention=attention.PAGED_FLASH, max_batch_tokens=32, **options)
    assert info.details["attention"] == attention.PAGED_FLASH
    assert info.details["attention_kernels"] == "exact"
    placed.reset_mock()
    assert ask(engine, QUERIES).tokens == one_at_a_time
    # Steps in which all answer take transformers' tables, where it has some.
    assert placed.called == in_tables


@pytest.mark.usefixtures("exact")
def test_the_warm_up_stays_within_the_pages_it_was_given(make: Make) -> None:
    """On a GPU an index beyond a table ends the process; here transformers only notes it, and 0 seconds."""
    engine, _ = make(**{**load_profile("quick").engine_options, "attention": attention.PAGED_FLASH})
    runner = engine._manager.batch_processor.model_runner
    for tokens, cached in ((1023, 0), (1024, 2048), (1, None)):
        assert runner.run_one_warmup(engine._model, tokens, cached) > 0
    assert ask(engine, QUERIES[:2]).tokens.keys() == {0, 1}
