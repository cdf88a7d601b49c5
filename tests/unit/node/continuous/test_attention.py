"""What attention there is, and the exact attention that torch's kernel is held against."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmark.errors import SetupError
from benchmark.node.continuous import attention, exact_attention, flash, flash_kernels

LLAMA = SimpleNamespace(sliding_window=None, layer_types=None, head_dim=64)


def test_on_the_cpu_nothing_with_flash_is_to_be_had() -> None:
    assert attention.automatic(LLAMA, "cpu", "float32") == "paged|eager"
    assert attention.missing("sdpa", LLAMA, "cpu", "float32") is None
    for name in (attention.TORCH_FLASH, "flash_attention_2", "flash_attention_3"):
        assert attention.missing(name, LLAMA, "cpu", "float16") == "it needs a GPU"


def test_flash_needs_half_precision_and_full_attention() -> None:
    assert "float16 or bfloat16" in (attention.missing("flash_attention_2", LLAMA, "cuda", "float32") or "")
    assert "version 3) is not installed" in (attention.missing("flash_attention_3", LLAMA, "cuda", "float16") or "")
    sliding = SimpleNamespace(sliding_window=4096, layer_types=None)
    assert "another kind" in (attention.missing(attention.TORCH_FLASH, sliding, "cuda", "float16") or "")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"torch_flash", "flash_attention_3", "flash_attention_2"}, "torch_flash"),
        ({"flash_attention_3", "flash_attention_2"}, "flash_attention_3"),
        ({"flash_attention_2"}, "flash_attention_2"),
        (set(), "sdpa"),
    ],
)
def test_a_gpu_gets_what_was_measured_and_sdpa_last(
    there: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "missing", lambda name, *machine: None if name in there else "it is not here")
    assert attention.automatic(LLAMA, "cuda", "float16") == taken


def test_exact_attention_is_causal_from_the_end_of_each_request() -> None:
    torch.manual_seed(0)
    lengths, answered = (7, 4), (2, 4)  # of the first request, five tokens are in the cache already
    whole = [tuple(torch.randn(length, heads, 8) for heads in (4, 2, 2)) for length in lengths]
    query = torch.cat([q[-n:] for (q, _, _), n in zip(whole, answered, strict=True)])
    key, value = (torch.cat([states[part] for states in whole]) for part in (1, 2))
    starts_q, starts_k = torch.tensor([0, 2, 6]), torch.tensor([0, 7, 11])
    packed = exact_attention.read(query, key, value, starts_q, starts_k, 4, 7)
    expected = []
    for states, n in zip(whole, answered, strict=True):
        q, k, v = (one.transpose(0, 1) for one in states)
        expected.append(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1)[-n:])
    torch.testing.assert_close(packed, torch.cat(expected))


def test_exact_attention_follows_the_pages_of_a_request() -> None:
    torch.manual_seed(0)
    key, value, query = torch.randn(6, 2, 8), torch.randn(6, 2, 8), torch.randn(1, 4, 8)
    pages_k, pages_v = torch.full((4, 4, 2, 8), torch.nan), torch.full((4, 4, 2, 8), torch.nan)
    for pages, rows in ((pages_k, key), (pages_v, value)):
        pages[3], pages[1, :2] = rows[:4], rows[4:]
    tables, lengths = torch.tensor([[3, 1], [0, 0]]), torch.tensor([6, 0])
    now = flash.Answering(tables, lengths, torch.arange(3), torch.zeros(3), torch.tensor([2]))
    found = exact_attention.answer(query.repeat(2, 1, 1), pages_k, pages_v, now)
    expected = exact_attention.read(query, key, value, torch.tensor([0, 1]), torch.tensor([0, 6]), 1, 6)
    torch.testing.assert_close(found, torch.cat([expected, torch.zeros_like(expected)]))


def aligned_to_the_start(q, k, v, starts_q, starts_k, max_q, max_k, scale):  # type: ignore[no-untyped-def]
    done = []
    for a, b, c, d in zip(starts_q[:-1], starts_q[1:], starts_k[:-1], starts_k[1:], strict=True):
        one_q, one_k, one_v = (part.float().transpose(0, 1) for part in (q[a:b], k[c:d], v[c:d]))
        one = scaled_dot_product_attention(one_q, one_k, one_v, is_causal=True, enable_gqa=True)
        done.append(one.transpose(0, 1))
    return torch.cat(done).to(q.dtype)


def blind_to_the_last_token(q, pages_k, pages_v, now, scale, out=None):  # type: ignore[no-untyped-def]
    shorter = replace(now, lengths=(now.lengths - 1).clamp(min=0))
    return exact_attention.answer(q, pages_k, pages_v, shorter, scale, out)


def answers_all_there_is_room_for(q, pages_k, pages_v, now, scale, out=None):  # type: ignore[no-untyped-def]
    return exact_attention.answer(q, pages_k, pages_v, replace(now, count=torch.tensor([5])), scale, out)


def not_a_number(q, pages_k, pages_v, now, scale, out=None):  # type: ignore[no-untyped-def]
    return exact_attention.answer(q, pages_k, pages_v, now, scale, out) * torch.nan


EXACT = flash.Kernels("exact", exact_attention.read, exact_attention.answer, flash_kernels.torchs_write)


def writes_keys_alone(key, value, rows, pages_k, pages_v):  # type: ignore[no-untyped-def]
    EXACT.write(key, key, rows, pages_k, pages_k)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, None),
        ({"any_pages": False}, None),
        ({"read": aligned_to_the_start}, "wrong by"),
        ({"answer": blind_to_the_last_token}, "wrong by"),
        ({"answer": answers_all_there_is_room_for}, "wrong by"),
        ({"answer": not_a_number}, "wrong by inf"),
        ({"write": writes_keys_alone}, "wrong by"),
    ],
)
def test_the_trial_tells_a_wrong_kernel(wrong: Any, said: str | None, monkeypatch: Any) -> None:
    flash_kernels.choose.cache_clear()
    for make in ("triton_kernels", "torch_kernels"):
        monkeypatch.setattr(flash_kernels, make, Mock(return_value=replace(EXACT, **wrong), __name__=make))
    reason = attention._torch_flash_missing(LLAMA, "cpu", "bfloat16")
    flash_kernels.choose.cache_clear()
    assert (reason is None) if said is None else (said in (reason or ""))


def test_a_kernel_that_does_not_run_is_a_reason_and_no_error() -> None:
    reason = attention._torch_flash_missing(LLAMA, "cpu", "bfloat16") or ""
    assert "torch kernels do not run here" in reason
    assert "triton kernels do not run here" in reason


def test_full_memory_is_no_reason_to_take_another_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    # It says nothing of the kernels: what was asked to be measured would be measured with others, and nobody told.
    flash_kernels.choose.cache_clear()
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."))
    for make in ("triton_kernels", "torch_kernels"):
        monkeypatch.setattr(flash_kernels, make, Mock(side_effect=full, __name__=make))
    with pytest.raises(SetupError, match="CUDA out of memory"):
        attention.automatic(LLAMA, "cuda", "float16")
