"""What transformers is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.continuous_options import Options
from benchmark.node.continuous.manager import make_manager


@pytest.mark.parametrize(
    ("name", "asked", "graphs", "overlapped"),
    [
        ("flash_attention_2", {}, (False, True), True),
        ("paged_flash", {}, (False, True), True),
        ("paged_flash", {"use_cuda_graph": True, "use_async_batching": False}, (False, True), False),
        ("flash_attention_2", {"use_cuda_graph": True}, (True, True), True),
        ("paged_flash", {"use_cuda_graph": False}, False, True),
        ("sdpa", {}, None, None),
    ],
)
def test_automatic_choices_capture_no_graph_while_measuring(
    name: str, asked: dict[str, Any], graphs: Any, overlapped: Any
) -> None:
    # What transformers is asked for; a GPU would be needed to see what it makes of it.
    model = SimpleNamespace(
        device=SimpleNamespace(type="cuda"),
        config=SimpleNamespace(),
        set_attn_implementation=lambda implementation: None,
        init_continuous_batching=lambda config, batching: batching,
    )
    batching, _ = make_manager(model, None, Options.model_validate(asked), name, None, seed=0)
    assert (batching.use_cuda_graph, batching.use_async_batching) == (graphs, overlapped)
    assert not batching.allow_block_sharing
    assert not batching.auto_switch_to_flash
