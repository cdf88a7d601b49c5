"""`paged_flash`: attention by our own kernels on the pages of transformers' cache, for all requests of a step at once.

Answering requests and requests whose prompt is being read use different kernels: in one call with a prompt, every
answering request would cost as much as if it had a prompt's number of new tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.node.continuous import layout

FULL_ATTENTION = "full_attention"

Attend = Callable[[Any, Any, Any, layout.Requests, float | None, Any], None]
"""(query, pages_k, pages_v, requests, scale, out): query and out (tokens, heads, size)."""


@dataclass(frozen=True)
class Kernels:
    """The kernels that compute it; see `flash_kernels`."""

    name: str
    answer: Attend
    """Writes the rows of answering requests; zeros where there is no request."""
    read: Attend
    """Writes the rows of prompts, where every token sees those before it."""
    write: Callable[[Any, Any, Any, Any, Any], None]
    """(key, value, rows, pages_k, pages_v): writes new keys and values to these rows of the pages."""


@dataclass(frozen=True)
class Step:
    """What all layers need to know about a step, computed once."""

    kernels: Kernels
    write_rows: Any
    """(tokens,) int64: where the new keys and values go."""
    requests: layout.Requests
    answers: bool = True
    """Whether the step may have answering requests."""
    reads: bool = True
    """Whether the step may read prompts."""


def make_step(inputs: Any, places: layout.Places, kernels: Kernels) -> Step:
    """Return a step, from what transformers passes to the model and from the places of its requests.

    Does not wait for the device. Inputs may be padded; what attention sees is not.
    """
    if inputs["block_table"] is not None:
        return _answering_step(inputs, kernels)
    rows = inputs["write_index"][0][: places.written]
    return Step(kernels, rows, places.here(), places.answering > 0, places.tiles > 0)


def _answering_step(inputs: Any, kernels: Kernels) -> Step:
    """Return a step in which every request has one new token; transformers has its pages on the device (-1: none)."""
    import torch

    allocator = next(iter(inputs["cache"].cache_allocators.values()))
    page_size = allocator.tokens_per_page
    lengths = inputs["cu_seq_lens_k"][FULL_ATTENTION].diff()
    tables = inputs["block_table"][0].clamp(min=0)
    last = (lengths - 1).clamp(min=0)
    pages = tables.gather(1, (last // page_size)[:, None].long())[:, 0]
    rows = torch.where(lengths > 0, pages.long() * page_size + last % page_size, allocator.write_trash_index)
    return Step(kernels, rows, layout.answering(tables, lengths), reads=False)


def forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    step: Step | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Compute attention over packed requests, as an AttentionInterface of transformers: (1, heads, tokens, size) each.

    Returns (1, tokens, heads, size). Raises ValueError outside the continuous engine and for unsupported features.
    """
    import torch

    if step is None or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(
            "This attention is only for the continuous engine, and supports no soft caps or attention sinks."
        )
    pages_k, pages_v = cache.layer_to_allocator[module.layer_idx].get_cache_for_block_table(module.layer_idx)
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    kernels, new = step.kernels, len(step.write_rows)
    kernels.write(key[:new], value[:new], step.write_rows, pages_k, pages_v)
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if step.answers:
        kernels.answer(query, pages_k, pages_v, step.requests, scaling, out)
    if step.reads:
        kernels.read(query, pages_k, pages_v, step.requests, scaling, out)
    return out.unsqueeze(0), None
