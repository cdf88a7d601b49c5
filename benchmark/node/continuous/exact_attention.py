"""Attention in float32, one request after the other: the reference for the kernels."""

from __future__ import annotations

from typing import Any

from benchmark.node.continuous.layout import Requests


def answer(query: Any, pages_k: Any, pages_v: Any, requests: Requests, scale: float | None, out: Any) -> None:
    """Compute one new token of each request that answers; zeros where there is no request."""
    for number, length in enumerate(requests.lengths[: int(requests.counts[0])].tolist()):
        key, value = (_rows(pages, requests, number, length) for pages in (pages_k, pages_v))
        out[number] = _attend(query[number : number + 1], key, value, scale)[0] if length else 0


def read(query: Any, pages_k: Any, pages_v: Any, requests: Requests, scale: float | None, out: Any) -> None:
    """Compute the new tokens of prompts: each sees the earlier tokens of its request, and itself."""
    for number, row, tokens, before in requests.tiles[: int(requests.counts[1])].tolist():
        key, value = (_rows(pages, requests, number, before + tokens) for pages in (pages_k, pages_v))
        out[row : row + tokens] = _attend(query[row : row + tokens], key, value, scale)


def _rows(pages: Any, requests: Requests, number: int, length: int) -> Any:
    """Return the keys or values of a request's first tokens, (length, heads, size)."""
    page_size = pages.shape[1]
    first = int(requests.first_pages[number])
    return pages[requests.pages[first : first - (-length // page_size)].long()].flatten(0, 1)[:length]


def _attend(query: Any, key: Any, value: Any, scale: float | None) -> Any:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    tokens_q, tokens_k = len(query), len(key)
    seen = torch.ones(tokens_q, tokens_k, dtype=torch.bool, device=query.device).tril(tokens_k - tokens_q)
    query, key, value = (one.transpose(0, 1) for one in (query, key, value))
    exact = query.float(), key.float(), value.float()
    answer = scaled_dot_product_attention(exact[0], exact[1], exact[2], attn_mask=seen, scale=scale, enable_gqa=True)
    return answer.transpose(0, 1).to(query.dtype)
