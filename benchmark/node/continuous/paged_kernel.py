"""Attention of answering requests on the pages of a cache, in Triton: one new token each, read where the keys lie.

Of its own because torch's kernel, made for prompts, computes 128 rows for the 4 query heads that share a head of keys:
on an H200 that took twice the time that reading keys and values takes. Here it is 16 rows, the least that the matrix
units do, and the reading is the limit. Keys are read once for all heads of a group.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from benchmark.node.continuous.flash import Answering

# Tokens that one round of the loop reads; divides a page.
BLOCK = 64
ROWS = 16
MOST_SPLITS = 16
BLOCKS_PER_PROCESSOR = 40
LOG2_E = 1.4426950408889634


# Numbers that differ from step to step are not compiled in: that would compile again while measuring.
@triton.jit(do_not_specialize=["table_row"])
def _answer(
    q, k, v, tables, lengths, out, sums, scale,
    q_token, q_head, kv_row, kv_head, table_row,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, PAGE: tl.constexpr, STEP: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr, SPLITS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One request, one head of keys, one part of the tokens: writes the answer, or its part and the log of its sum."""
    request, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + request)
    share = tl.cdiv(tl.cdiv(length, SPLITS), STEP) * STEP
    first = part * share
    last = tl.minimum(length, first + share)
    rows, columns, steps = tl.arange(0, ROWS), tl.arange(0, SIZE), tl.arange(0, STEP)
    heads = head * GROUP + rows
    real = (rows < GROUP)[:, None]
    query = tl.load(q + request.to(tl.int64) * q_token + heads[:, None] * q_head + columns[None, :], real, 0.0)
    most = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    answer = tl.zeros((ROWS, SIZE), tl.float32)
    for begin in range(first, last, STEP):
        page = tl.load(tables + request * table_row + begin // PAGE).to(tl.int64)
        place = (page * PAGE + begin % PAGE + steps) * kv_row + head * kv_head
        there = begin + steps < last
        keys = tl.load(k + place[:, None] + columns[None, :], there[:, None], 0.0)
        scores = tl.where(there[None, :], tl.dot(query, tl.trans(keys)) * scale, -float("inf"))
        new = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - new[:, None])
        shrink = tl.exp2(most - new)
        values = tl.load(v + place[:, None] + columns[None, :], there[:, None], 0.0)
        total = total * shrink + tl.sum(weights, 1)
        answer = answer * shrink[:, None] + tl.dot(weights.to(values.dtype), values)
        most = new
    answer = answer / tl.where(total > 0, total, 1.0)[:, None]
    place = (request.to(tl.int64) * HEADS + heads) * SPLITS + part
    tl.store(out + place[:, None] * SIZE + columns[None, :], answer.to(out.dtype.element_ty), real)
    if SPLITS > 1:
        tl.store(sums + place, most + tl.log2(total), rows < GROUP)


@triton.jit
def _join(parts, sums, out, SIZE: tl.constexpr, SPLITS: tl.constexpr):  # noqa: N803 # as Triton's users write
    """Join the parts of one head of one request."""
    place = tl.program_id(0).to(tl.int64)
    numbers, columns = tl.arange(0, SPLITS), tl.arange(0, SIZE)
    logs = tl.load(sums + place * SPLITS + numbers)
    most = tl.max(logs, 0)
    weights = tl.exp2(logs - tl.where(most == -float("inf"), 0.0, most))
    answers = tl.load(parts + (place * SPLITS + numbers)[:, None] * SIZE + columns[None, :])
    total = tl.sum(weights, 0)
    answer = tl.sum(answers * weights[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out + place * SIZE + columns, answer.to(out.dtype.element_ty))


def answer(query: Any, pages_k: Any, pages_v: Any, now: Answering, scale: float | None) -> Any:
    """Attend: query (requests, heads, size), pages (pages, tokens, heads of keys, size); zeros where is no request.

    `size` is a power of two, at least 16; a page has a multiple of 64 tokens. CUDA graphs can hold it.
    """
    requests, heads, size = query.shape
    page, kv_heads = pages_k.shape[1:3]
    splits = _splits(requests * kv_heads, query.device)
    out = torch.empty((requests, heads, size), dtype=query.dtype, device=query.device)
    parts, sums = out, out
    if splits > 1:
        parts = torch.empty((requests, heads, splits, size), dtype=torch.float32, device=query.device)
        sums = torch.empty((requests, heads, splits), dtype=torch.float32, device=query.device)
    scale = (size**-0.5 if scale is None else scale) * LOG2_E
    strides = query.stride(0), query.stride(1), pages_k.stride(1), pages_k.stride(2), now.tables.stride(0)
    _answer[(requests, kv_heads, splits)](
        query, pages_k, pages_v, now.tables, now.lengths, parts, sums, scale, *strides,
        HEADS=heads, GROUP=heads // kv_heads, SIZE=size, PAGE=page, STEP=BLOCK, ROWS=ROWS, SPLITS=splits,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    if splits > 1:
        _join[(requests * heads,)](parts, sums, out, SIZE=size, SPLITS=splits, num_warps=1)
    return out


def _splits(blocks: int, device: Any) -> int:
    """Return in how many parts each request is read, so that few of them, and some long ones, keep all of a GPU busy.

    On an H200, requests of 850 tokens or so: 16 took 25 us in 8 parts and 41 in 2; 80 took 79 in 8 and 92 in one.
    """
    wanted = BLOCKS_PER_PROCESSOR * _processors(device) // blocks
    return min(MOST_SPLITS, 2 ** (wanted.bit_length() - 1)) if wanted else 1


@functools.cache
def _processors(device: Any) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
