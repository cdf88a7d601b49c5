"""`paged_flash`: attention by kernels of ours on the pages of transformers' cache, for all requests of a step at once.

Requests that answer and requests whose prompt is being read take kernels of their own: in one call with a prompt, every
answering request would be computed as if it had as many new tokens as are read together.
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
    """What computes it; see `flash_kernels`."""

    name: str
    answer: Attend
    """Writes the rows of requests that answer; zeros where there is no request."""
    read: Attend
    """Writes the rows of prompts, of which every token sees those before it."""
    write: Callable[[Any, Any, Any, Any, Any], None]
    """(key, value, rows, pages_k, pages_v): puts new keys and values there."""


@dataclass(frozen=True)
class Step:
    """What all layers need to know of one step, worked out once."""

    kernels: Kernels
    write_rows: Any
    """(tokens,) int64: where the new keys and values go."""
    requests: layout.Requests
    answers: bool = True
    """Whether requests may answer in it."""
    reads: bool = True
    """Whether prompts may be read in it."""


def make_step(inputs: Any, places: layout.Places, kernels: Kernels) -> Step:
    """Work out a step from what transformers passes to the model, and from where its requests lie.

    Without waiting for the device. Inputs may be padded: what attention sees is not.
    """
    if inputs["block_table"] is not None:
        return _answering_step(inputs, kernels)
    rows = inputs["write_index"][0][: places.written]
    return Step(kernels, rows, places.here(), places.answering > 0, places.tiles > 0)


def _answering_step(inputs: Any, kernels: Kernels) -> Step:
    """Every request has one new token, and transformers has its pages on the device (-1 where there is none)."""
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
    """Attention over packed requests, as transformers' AttentionInterface calls it: (1, heads, tokens, size) each.

    Returns (1, tokens, heads, size). Raises ValueError outside the continuous engine and for what the kernels have not.
    """
    import torch

    if step is None or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("This attention is for the continuous engine, without soft caps and attention sinks.")
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
