"""Attention in float32, one request after the other: what torch's kernels are held against."""

from __future__ import annotations

from typing import Any

from benchmark.node.continuous.flash import Answering


def read(
    query: Any, key: Any, value: Any, starts_q: Any, starts_k: Any, max_q: int, max_k: int, scale: float | None = None
) -> Any:
    """Packed requests: causal, aligned to the end of each request's keys."""
    import torch

    answers = []
    for number in range(len(starts_q) - 1):
        span_q, span_k = (slice(int(s[number]), int(s[number + 1])) for s in (starts_q, starts_k))
        answers.append(_attend(query[span_q], key[span_k], value[span_k], scale))
    return torch.cat(answers)


def answer(query: Any, pages_k: Any, pages_v: Any, now: Answering, scale: float | None = None, out: Any = None) -> Any:
    """One new token per request, whose keys lie in pages; zeros where there is no request."""
    import torch

    out = torch.zeros_like(query[: len(now.lengths)]) if out is None else out
    for number, length in enumerate(now.lengths[: int(now.count)].tolist()):
        key, value = (pages[now.tables[number].long()].flatten(0, 1)[:length] for pages in (pages_k, pages_v))
        out[number] = _attend(query[number : number + 1], key, value, scale)[0] if length else 0
    return out


def _attend(query: Any, key: Any, value: Any, scale: float | None) -> Any:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    tokens_q, tokens_k = len(query), len(key)
    seen = torch.ones(tokens_q, tokens_k, dtype=torch.bool, device=query.device).tril(tokens_k - tokens_q)
    query, key, value = (one.transpose(0, 1) for one in (query, key, value))
    exact = query.float(), key.float(), value.float()
    answer = scaled_dot_product_attention(exact[0], exact[1], exact[2], attn_mask=seen, scale=scale, enable_gqa=True)
    return answer.transpose(0, 1).to(query.dtype)
