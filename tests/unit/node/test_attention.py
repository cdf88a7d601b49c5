"""What attention there is, and the exact attention that torch's kernel is held against."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmark.node import attention

LLAMA = SimpleNamespace(sliding_window=None, layer_types=None)


def test_on_the_cpu_nothing_with_flash_is_to_be_had() -> None:
    assert attention.automatic(LLAMA, "cpu", "float32") == "paged|eager"
    assert attention.missing("sdpa", LLAMA, "cpu", "float32") is None
    for name in (attention.TORCH_FLASH, "flash_attention_2", "flash_attention_3"):
        assert attention.missing(name, LLAMA, "cpu", "float16") == "it needs a GPU"


def test_flash_needs_half_precision_its_package_and_full_attention() -> None:
    assert "float16 or bfloat16" in (attention.missing("flash_attention_2", LLAMA, "cuda", "float32") or "")
    assert "version 3) is not installed" in (attention.missing("flash_attention_3", LLAMA, "cuda", "float16") or "")
    sliding = SimpleNamespace(sliding_window=4096, layer_types=None)
    assert "another kind" in (attention.missing(attention.TORCH_FLASH, sliding, "cuda", "float16") or "")


def test_exact_attention_is_causal_from_the_end_of_each_request() -> None:
    torch.manual_seed(0)
    lengths, answered = (7, 4), (2, 4)  # of the first request, five tokens are in the cache already
    whole = [tuple(torch.randn(length, heads, 8) for heads in (4, 2, 2)) for length in lengths]
    query = torch.cat([q[-n:] for (q, _, _), n in zip(whole, answered, strict=True)])
    key, value = (torch.cat([states[part] for states in whole]) for part in (1, 2))
    starts_q, starts_k = torch.tensor([0, 2, 6]), torch.tensor([0, 7, 11])
    packed = attention.exact_attention(query, key, value, starts_q, starts_k, 4, 7)
    expected = []
    for states, n in zip(whole, answered, strict=True):
        q, k, v = (one.transpose(0, 1) for one in states)
        expected.append(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1)[-n:])
    torch.testing.assert_close(packed, torch.cat(expected))


@pytest.mark.parametrize(("kernel", "wrong"), [("exact", False), ("aligned to the start", True)])
def test_the_trial_tells_a_wrong_kernel(kernel: str, wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def aligned_to_the_start(q, k, v, starts_q, starts_k, max_q, max_k, scale):  # type: ignore[no-untyped-def]
        done = []
        for a, b, c, d in zip(starts_q[:-1], starts_q[1:], starts_k[:-1], starts_k[1:], strict=True):
            one_q, one_k, one_v = (part.float().transpose(0, 1) for part in (q[a:b], k[c:d], v[c:d]))
            one = scaled_dot_product_attention(one_q, one_k, one_v, is_causal=True, enable_gqa=True)
            done.append(one.transpose(0, 1))
        return torch.cat(done).to(q.dtype)

    chosen = attention.exact_attention if kernel == "exact" else aligned_to_the_start
    monkeypatch.setattr(attention, "varlen_kernel", lambda: chosen)
    reason = attention._torch_flash_missing(LLAMA, "cpu", "bfloat16")
    assert ("wrong by" in (reason or "")) == wrong
    assert (reason is None) == (not wrong)


def test_a_kernel_that_does_not_run_here_is_a_reason_and_no_error() -> None:
    assert "does not run here" in (attention._torch_flash_missing(LLAMA, "cpu", "bfloat16") or "")
