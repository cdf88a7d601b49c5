"""Attention of answering requests on the pages of a cache, in Triton: one new token each, keys read in place.

torch's kernel, made for prompts, computes 128 rows for the 4 query heads that share a key head: on an H200 that took
twice as long as reading keys and values. Here it is 16 rows, the minimum of the matrix units, and reading is the limit.
Keys are read once for all heads of a group.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from benchmark.node.continuous.layout import Requests
from benchmark.node.continuous.triton_start import start

# Tokens that the loop reads per iteration; a divisor of the page size.
BLOCK = 64
# The minimum; a larger group of heads uses more.
ROWS = 16
MOST_SPLITS = 16
# Per multiprocessor: the most items that requests are split into, and the number of programs that process them.
ITEMS_PER_PROCESSOR = 40
PROGRAMS_PER_PROCESSOR = 16
LOG2_E = 1.4426950408889634


@triton.jit
def within(mask, columns, SIZE: tl.constexpr, WIDTH: tl.constexpr):  # noqa: N803 # Triton's convention
    """Return a mask without the columns that only pad a head to a power of two."""
    return mask if SIZE == WIDTH else mask & (columns < SIZE)[None, :]


# Numbers that differ between steps are not compiled in: that would trigger compilation while measuring.
@triton.jit(do_not_specialize=["most_items"])
def _answer(
    q, k, v, pages, first_pages, lengths, counts, out, parts, sums, scale, most_items,
    q_token, q_head, kv_row, kv_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, PAGE: tl.constexpr, STEP: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Process items in turn; each item is one request, one key head, and one part of the tokens.

    Writes the answer or, for a request that is read in parts, each part's and the log of its sum.
    """
    blocks = tl.load(counts) * (HEADS // GROUP)
    splits = tl.minimum(SPLITS, tl.maximum(1, most_items // tl.maximum(1, blocks)))
    rows, columns, steps = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, STEP)
    real = within((rows < GROUP)[:, None], columns, SIZE, WIDTH)
    for item in range(tl.program_id(0), blocks * splits, tl.num_programs(0)):
        part, head, request = item % splits, item // splits % (HEADS // GROUP), item // splits // (HEADS // GROUP)
        length = tl.load(lengths + request)
        table = pages + tl.load(first_pages + request)
        share = tl.cdiv(tl.cdiv(length, splits), STEP) * STEP
        first = part * share
        last = tl.minimum(length, first + share)
        heads = head * GROUP + rows
        query = tl.load(
            q + tl.cast(request, tl.int64) * q_token + heads[:, None] * q_head + columns[None, :], real, 0.0
        )
        most = tl.full((ROWS,), -float("inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        answer = tl.zeros((ROWS, WIDTH), tl.float32)
        for begin in range(first, last, STEP):
            page = tl.load(table + begin // PAGE).to(tl.int64)
            place = (page * PAGE + begin % PAGE + steps) * kv_row + head * kv_head
            there = begin + steps < last
            kept = within(there[:, None], columns, SIZE, WIDTH)
            keys = tl.load(k + place[:, None] + columns[None, :], kept, 0.0)
            scores = tl.where(there[None, :], tl.dot(query, tl.trans(keys)) * scale, -float("inf"))
            new = tl.maximum(most, tl.max(scores, 1))
            weights = tl.exp2(scores - new[:, None])
            shrink = tl.exp2(most - new)
            values = tl.load(v + place[:, None] + columns[None, :], kept, 0.0)
            total = total * shrink + tl.sum(weights, 1)
            answer = answer * shrink[:, None] + tl.dot(weights.to(values.dtype), values)
            most = new
        answer = answer / tl.where(total > 0, total, 1.0)[:, None]
        place = tl.cast(request, tl.int64) * HEADS + heads
        if splits == 1:
            tl.store(out + place[:, None] * SIZE + columns[None, :], answer.to(out.dtype.element_ty), real)
        else:
            place = place * splits + part
            tl.store(parts + place[:, None] * SIZE + columns[None, :], answer, real)
            tl.store(sums + place, most + tl.log2(total), rows < GROUP)


@triton.jit(do_not_specialize=["most_items"])
def _join(
    parts, sums, counts, out, most_items,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
    SPLITS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Combine the parts of each head of each request, if there are several."""
    requests = tl.load(counts)
    splits = tl.minimum(SPLITS, tl.maximum(1, most_items // tl.maximum(1, requests * (HEADS // GROUP))))
    numbers, columns = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    heads = tl.where(splits > 1, requests * HEADS, 0)
    for item in range(tl.program_id(0), heads, tl.num_programs(0)):
        place = tl.cast(item, tl.int64) * splits + numbers
        logs = tl.load(sums + place, numbers < splits, -float("inf"))
        most = tl.max(logs, 0)
        weights = tl.exp2(logs - tl.where(most == -float("inf"), 0.0, most))
        real = within((numbers < splits)[:, None], columns, SIZE, WIDTH)
        answers = tl.load(parts + place[:, None] * SIZE + columns[None, :], real, 0.0)
        total = tl.sum(weights, 0)
        answer = tl.sum(answers * weights[:, None], 0) / tl.where(total > 0, total, 1.0)
        kept = None if SIZE == WIDTH else columns < SIZE
        tl.store(out + tl.cast(item, tl.int64) * SIZE + columns, answer.to(out.dtype.element_ty), kept)


def answer(query: Any, pages_k: Any, pages_v: Any, requests: Requests, scale: float | None, out: Any) -> None:
    """Attend: query and out (tokens, heads, size), pages (pages, tokens, key heads, size); `out` is contiguous.

    The page size must be a multiple of 64 tokens. Writes the first rows of `out`, one per answering request: zeros for
    a request without tokens.
    """
    heads, size = query.shape[1:]
    page, kv_heads = pages_k.shape[1:3]
    # Reading in parts keeps the whole GPU busy with few requests, and keeps long ones from delaying others. On an H200,
    # with requests of about 850 tokens, 16 took 25 us in 8 parts and 41 us in 2; 80 took 79 us in 8 and 92 us in one.
    all_parts = len(requests.lengths) * kv_heads * MOST_SPLITS
    most_items = ITEMS_PER_PROCESSOR * processors(query.device)
    held = min(all_parts, most_items) * (heads // kv_heads)
    parts = torch.empty((held, size), dtype=torch.float32, device=query.device)
    sums = torch.empty((held,), dtype=torch.float32, device=query.device)
    scale = (size**-0.5 if scale is None else scale) * LOG2_E
    strides = query.stride(0), query.stride(1), pages_k.stride(1), pages_k.stride(2)
    group, width = heads // kv_heads, triton.next_power_of_2(size)
    sizes = {"HEADS": heads, "GROUP": group, "SIZE": size, "WIDTH": width, "SPLITS": MOST_SPLITS}
    programs = min(all_parts, PROGRAMS_PER_PROCESSOR * processors(query.device))
    start(
        _answer, programs, query, pages_k, pages_v, requests.pages, requests.first_pages, requests.lengths,
        requests.counts, out, parts, sums, scale, most_items, *strides,
        PAGE=page, STEP=BLOCK, ROWS=max(ROWS, triton.next_power_of_2(group)), **sizes, num_warps=4, num_stages=2,
    )  # fmt: skip
    start(_join, programs, parts, sums, requests.counts, out, most_items, **sizes, num_warps=1)


@functools.cache
def processors(device: Any) -> int:
    """Return the number of multiprocessors of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
