"""Attention of prompts on the pages of a cache, in Triton: several new tokens of a request, each sees all before it.

torch's kernel takes 1.4 to 2 times as long as this one on an H200, needs the keys of a prompt's earlier parts copied
together, and gets its sizes at launch, so a CUDA graph could not hold it.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from benchmark.node.continuous.layout import TILE_ROWS, Requests
from benchmark.node.continuous.paged_kernel import LOG2_E, processors, within
from benchmark.node.continuous.triton_start import start

# Tokens that the loop reads per iteration; a divisor of the page size. Of nine such choices this one was the fastest on
# an H200, or within 4 % of it, from 300 to 4,096 new tokens.
BLOCK = 64
WARPS, STAGES = 4, 2
# Shared memory per multiprocessor, in bytes, needed to read heads of more than 128 values in two stages. Graphics GPUs
# (sm_86, sm_89, sm_120) have 99 KiB: there the next block's keys and values are not prefetched.
WIDE, WIDE_BYTES = 256, 160 * 1024
# Programs per multiprocessor.
PROGRAMS_PER_PROCESSOR = 4


@triton.jit
def _read(
    q, k, v, pages, first_pages, tiles, counts, out, scale,
    q_token, q_head, kv_row, kv_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, PAGE: tl.constexpr, STEP: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803 # Triton's convention
):  # fmt: skip
    """Process items in turn, the longest first; each item is one tile of a prompt and one head."""
    rows, columns, steps = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, STEP)
    items = tl.load(counts + 1) * HEADS
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        tile, head = tiles + item // HEADS * 4, item % HEADS
        kv = head // GROUP * kv_head
        table = pages + tl.load(first_pages + tl.load(tile))
        row, tokens, before = tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
        real = within((rows < tokens)[:, None], columns, SIZE, WIDTH)
        here = tl.cast(row, tl.int64) + rows
        query = tl.load(q + here[:, None] * q_token + head * q_head + columns[None, :], real, 0.0)
        most = tl.full((ROWS,), -float("inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        answer = tl.zeros((ROWS, WIDTH), tl.float32)
        # In these blocks every row sees all tokens.
        whole = (before + 1) // STEP * STEP
        inside = None if SIZE == WIDTH else (columns < SIZE)[None, :]
        outside = None if SIZE == WIDTH else 0.0
        for begin in range(0, whole, STEP):
            place = (tl.load(table + begin // PAGE).to(tl.int64) * PAGE + begin % PAGE + steps) * kv_row + kv
            keys = tl.load(k + place[:, None] + columns[None, :], inside, outside)
            scores = tl.dot(query, tl.trans(keys)) * scale
            new = tl.maximum(most, tl.max(scores, 1))
            weights = tl.exp2(scores - new[:, None])
            shrink = tl.exp2(most - new)
            values = tl.load(v + place[:, None] + columns[None, :], inside, outside)
            total = total * shrink + tl.sum(weights, 1)
            answer = tl.dot(weights.to(values.dtype), values, answer * shrink[:, None])
            most = new
        last = before + tokens
        for begin in range(whole, last, STEP):
            place = (tl.load(table + begin // PAGE).to(tl.int64) * PAGE + begin % PAGE + steps) * kv_row + kv
            there = begin + steps < last
            kept = within(there[:, None], columns, SIZE, WIDTH)
            keys = tl.load(k + place[:, None] + columns[None, :], kept, 0.0)
            seen = there[None, :] & (begin + steps[None, :] <= before + rows[:, None])
            scores = tl.where(seen, tl.dot(query, tl.trans(keys)) * scale, -float("inf"))
            new = tl.maximum(most, tl.max(scores, 1))
            # A row may see nothing of a block; rows beyond the tile's tokens see no more than its last one.
            weights = tl.exp2(scores - new[:, None])
            shrink = tl.exp2(most - new)
            values = tl.load(v + place[:, None] + columns[None, :], kept, 0.0)
            total = total * shrink + tl.sum(weights, 1)
            answer = tl.dot(weights.to(values.dtype), values, answer * shrink[:, None])
            most = new
        answer = answer / total[:, None]
        tl.store(out + (here[:, None] * HEADS + head) * SIZE + columns[None, :], answer.to(out.dtype.element_ty), real)


def read(query: Any, pages_k: Any, pages_v: Any, requests: Requests, scale: float | None, out: Any) -> None:
    """Attend: query and out (tokens, heads, size), pages (pages, tokens, key heads, size); `out` is contiguous.

    The page size must be a multiple of 64 tokens. Writes the rows of the tiles.
    """
    heads, size = query.shape[1:]
    page, kv_heads = pages_k.shape[1:3]
    width = triton.next_power_of_2(size)
    programs = min(len(requests.tiles) * heads, PROGRAMS_PER_PROCESSOR * processors(query.device))
    start(
        _read, programs, query, pages_k, pages_v, requests.pages, requests.first_pages, requests.tiles,
        requests.counts, out, (size**-0.5 if scale is None else scale) * LOG2_E,
        query.stride(0), query.stride(1), pages_k.stride(1), pages_k.stride(2),
        HEADS=heads, GROUP=heads // kv_heads, SIZE=size, PAGE=page, STEP=BLOCK, ROWS=TILE_ROWS,
        WIDTH=width, num_warps=WARPS, num_stages=stages(width, query.device),
    )  # fmt: skip


@functools.cache
def stages(width: int, device: Any) -> int:
    """Return how many blocks of tokens a program holds at once, for heads of that width."""
    if width < WIDE or device.type != "cuda" or torch.version.cuda is None:
        return STAGES
    there = torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor
    return STAGES if there >= WIDE_BYTES else 1
