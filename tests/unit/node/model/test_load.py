"""What a model needs of a GPU's memory, known before it is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from benchmark.errors import SetupError
from benchmark.node.continuous import memory_plan as memory
from benchmark.node.model import load as model
from benchmark.node.model.architecture import Sizes

LLAMA_8B = Sizes(hidden=4096, widest=14336, vocabulary=128256, layers=32, kv_values=8 * 128)
# 24 GiB of which the driver keeps a little, as on an A30.
A30 = 25_000_000_000
WEIGHTS = 16_060_522_496


def plan(free: int = A30, **changes: Any) -> memory.Plan:
    needed: dict[str, Any] = {"weights": WEIGHTS, "needed_tokens": 129, "page_size": 256, **changes}
    return memory.make_plan(LLAMA_8B, 2, free, **needed)


def test_the_cache_of_llama_8b_takes_128_kib_per_token() -> None:
    assert memory.cache_bytes(LLAMA_8B, 2) == 128 * 1024
    assert memory.cache_bytes(LLAMA_8B, 4) == 256 * 1024
    assert memory.cache_bytes(replace(LLAMA_8B, kv_values=32 * 64), 2) == 2 * 32 * 32 * 64 * 2


def test_on_24_gb_the_cache_of_llama_8b_has_room() -> None:
    found = plan()
    assert 40_000 < found.cache_tokens < 60_000
    assert found.batch_tokens == 4096
    assert found.requests == 128
    assert "GPU memory: 25.0 GB available, 16.1 GB weights" in found.sentence()


def test_recorded_steps_have_memory_of_their_own() -> None:
    plain, recorded = plan(batch_tokens=4096, requests=64), plan(batch_tokens=4096, requests=64, graph_tokens=2048)
    assert plain.steps * 1.3 < recorded.steps < plain.steps * 2
    assert recorded.cache_tokens < plain.cache_tokens
    # No step is longer than one may be.
    assert (
        plan(batch_tokens=1024, requests=64, graph_tokens=2048).steps == 2 * plan(batch_tokens=1024, requests=64).steps
    )


@given(
    free=st.integers(17, 200).map(lambda gb: gb * 10**9),
    page_size=st.sampled_from([16, 256, 1024]),
    batch_tokens=st.none() | st.integers(1, 8192),
    requests=st.none() | st.integers(1, 1024),
    graph_tokens=st.integers(0, 4096),
)
def test_a_plan_never_takes_more_than_there_is(
    free: int, page_size: int, batch_tokens: int | None, requests: int | None, graph_tokens: int
) -> None:
    try:
        found = plan(free, page_size=page_size, batch_tokens=batch_tokens, requests=requests, graph_tokens=graph_tokens)
    except SetupError:
        reject()  # the next test is about these
    taken = found.weights + found.steps + found.cache_tokens * found.bytes_per_token
    assert taken + memory.LEAST_RESERVE <= free
    assert found.cache_tokens % page_size == 0
    assert found.cache_tokens >= 129
    # Nothing is left lying about either: one page more would not have fitted.
    usable = (free - found.weights) - max(memory.LEAST_RESERVE, round((free - found.weights) * 0.1))
    assert usable - (taken - found.weights) < page_size * found.bytes_per_token


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        SetupError, match=r"The model does not fit: .* at least 129 tokens are needed, which takes 0\.2 GB more"
    ):
        plan(17 * 10**9)
    with pytest.raises(SetupError, match=r"at least 100000 tokens are needed, which takes \d\.\d GB more"):
        plan(needed_tokens=100_000)


def test_weights_that_do_not_fit_are_refused_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (24 * 10**9, 25 * 10**9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 0)
    monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda device: 1.0, raising=False)
    model._check_memory(16 * 10**9, "float16")
    with pytest.raises(SetupError, match=r"needs 25.1 GB \(23.0 GB of weights in float16 among them\)"):
        model._check_memory(23 * 10**9, "float16")
    monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda device: 0.5, raising=False)
    with pytest.raises(SetupError, match=r"the GPU has 12.5 GB free of 25.0"):
        model._check_memory(16 * 10**9, "float16")
