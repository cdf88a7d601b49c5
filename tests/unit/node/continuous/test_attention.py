"""What attention there is, and the exact attention that kernels are held against."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmark.errors import SetupError
from benchmark.node.continuous import attention, exact_attention, flash, flash_kernels, layout

LLAMA = SimpleNamespace(
    sliding_window=None, layer_types=None, head_dim=64, num_attention_heads=32, num_key_value_heads=8
)


def test_on_the_cpu_nothing_with_flash_is_to_be_had() -> None:
    assert attention.automatic(LLAMA, "cpu", "float32") == "paged|eager"
    assert attention.missing("sdpa", LLAMA, "cpu", "float32") is None
    for name in (attention.PAGED_FLASH, "flash_attention_2", "flash_attention_3"):
        assert attention.missing(name, LLAMA, "cpu", "float16") == "it needs a GPU"


def test_flash_needs_half_precision_and_full_attention() -> None:
    assert "float16 or bfloat16" in (attention.missing("flash_attention_2", LLAMA, "cuda", "float32") or "")
    assert "version 3) is not installed" in (attention.missing("flash_attention_3", LLAMA, "cuda", "float16") or "")
    sliding = SimpleNamespace(sliding_window=4096, layer_types=None)
    assert "other than full" in (attention.missing(attention.PAGED_FLASH, sliding, "cuda", "float16") or "")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"paged_flash", "flash_attention_3", "flash_attention_2"}, "paged_flash"),
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


def test_exact_attention_is_causal_and_follows_pages() -> None:
    torch.manual_seed(0)
    pages_k, pages_v = (torch.full((5, 4, 2, 8), torch.nan) for _ in "kv")
    whole = [tuple(torch.randn(length, heads, 8) for heads in (4, 2, 2)) for length in (6, 7, 3)]
    tables = [3, 1], [0, 4], [2]
    for (_, key, value), table in zip(whole, tables, strict=True):
        for number, page in enumerate(table):
            for pages, states in ((pages_k, key), (pages_v, value)):
                part = states[4 * number : 4 * number + 4]
                pages[page, : len(part)] = part
    # The first answers; of the second four tokens are there already; the third is new.
    requests = layout.Requests(
        torch.tensor([1, 2, 0, 0]),
        torch.tensor([6, 7, 3]),
        torch.tensor([0, 2, 4]),
        torch.tensor([[1, 1, 3, 4], [2, 4, 3, 0]]),
        torch.tensor([3, 1, 0, 4, 2]),
    )
    new = 1, 3, 3
    query = torch.cat([states[0][-n:] for states, n in zip(whole, new, strict=True)])
    out = torch.full_like(query, torch.nan)
    exact_attention.answer(query, pages_k, pages_v, requests, None, out)
    exact_attention.read(query, pages_k, pages_v, requests, None, out)
    expected = []
    for states, n in zip(whole, new, strict=True):
        q, k, v = (one.transpose(0, 1) for one in states)
        expected.append(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1)[-n:])
    torch.testing.assert_close(out, torch.cat(expected))


def aligned_to_the_start(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    tiles = requests.tiles.clone()
    tiles[:, 3] = 0
    exact_attention.read(q, pages_k, pages_v, replace(requests, tiles=tiles), scale, out)


def reads_all_there_is_room_for(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    exact_attention.read(q, pages_k, pages_v, replace(requests, counts=torch.tensor([3, 5])), scale, out)


def of_sixteen_heads_at_most(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    whole = torch.empty_like(out)
    exact_attention.answer(q, pages_k, pages_v, requests, scale, whole)
    group = q.shape[1] // pages_k.shape[2]
    for head in range(q.shape[1]):
        if head % group < 16:
            out[: int(requests.counts[0]), head] = whole[: int(requests.counts[0]), head]


def blind_to_the_last_token(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    shorter = replace(requests, lengths=(requests.lengths - 1).clamp(min=0))
    exact_attention.answer(q, pages_k, pages_v, shorter, scale, out)


def answers_all_there_is_room_for(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    exact_attention.read(q, pages_k, pages_v, requests, scale, out)
    exact_attention.answer(q, pages_k, pages_v, replace(requests, counts=torch.tensor([5, 4])), scale, out)


def not_a_number(q, pages_k, pages_v, requests, scale, out):  # type: ignore[no-untyped-def]
    out.fill_(torch.nan)


EXACT = flash.Kernels("exact", exact_attention.answer, exact_attention.read, flash_kernels.torchs_write)


def writes_keys_alone(key, value, rows, pages_k, pages_v):  # type: ignore[no-untyped-def]
    EXACT.write(key, key, rows, pages_k, pages_k)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, None),
        ({"read": aligned_to_the_start}, "off by"),
        ({"read": reads_all_there_is_room_for}, "off by"),
        ({"answer": blind_to_the_last_token}, "off by"),
        ({"read": lambda *about: None, "answer": answers_all_there_is_room_for}, "off by"),
        ({"answer": not_a_number}, "off by inf"),
        ({"write": writes_keys_alone}, "off by"),
    ],
)
def test_the_trial_tells_a_wrong_kernel(wrong: Any, said: str | None, monkeypatch: Any) -> None:
    flash_kernels.choose.cache_clear()
    monkeypatch.setattr(flash_kernels, "triton_kernels", lambda dtype: replace(EXACT, **wrong))
    reason = attention._paged_flash_missing(LLAMA, "cpu", "bfloat16")
    flash_kernels.choose.cache_clear()
    assert (reason is None) if said is None else (said in (reason or ""))


def test_kernels_are_tried_with_as_many_heads_as_the_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    flash_kernels.choose.cache_clear()
    kernels = replace(EXACT, answer=of_sixteen_heads_at_most)
    monkeypatch.setattr(flash_kernels, "triton_kernels", lambda dtype: kernels)
    assert attention._paged_flash_missing(LLAMA, "cpu", "bfloat16") is None
    wide = SimpleNamespace(**{**vars(LLAMA), "num_key_value_heads": 1})
    assert "off by" in (attention._paged_flash_missing(wide, "cpu", "bfloat16") or "")
    flash_kernels.choose.cache_clear()


def test_a_gpu_for_which_triton_has_no_matrix_units_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    flash_kernels.choose.cache_clear()
    assert "a GPU before sm_80" in (attention.missing(attention.PAGED_FLASH, LLAMA, "cuda", "float16") or "")
    flash_kernels.choose.cache_clear()


def test_a_kernel_that_does_not_run_is_a_reason_and_no_error() -> None:
    assert "its kernels do not run here (" in (attention._paged_flash_missing(LLAMA, "cpu", "bfloat16") or "")


def test_full_memory_is_no_reason_to_take_another_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    # It says nothing of the kernels: what was asked to be measured would be measured with others, and nobody told.
    flash_kernels.choose.cache_clear()
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."))
    monkeypatch.setattr(flash_kernels, "triton_kernels", full)
    with pytest.raises(SetupError, match="CUDA out of memory"):
        attention.automatic(LLAMA, "cuda", "float16")
