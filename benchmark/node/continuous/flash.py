"""`torch_flash`: the flash attention that comes with torch, on the pages of transformers' cache.

A step of continuous batching holds requests that answer (one new token each) and requests whose prompt is being
read. The kernel wants them apart: it reads the keys of an answering request where they lie, once for all heads of a
group, and for such a step all sizes are known beforehand, so that CUDA graphs can hold it. In one call with a prompt,
every answering request would be computed as if it had 128 new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.node.continuous.pieces import Recording

FULL_ATTENTION = "full_attention"


@dataclass(frozen=True)
class Answering:
    """The requests of a step with one new token each; they come first."""

    tables: Any
    """(requests, pages) int32: the numbers of each request's pages, in order."""
    lengths: Any
    """(requests,) int32: tokens so far, with the new one; 0 where there is no request."""
    starts_q: Any
    """(requests + 1,) int32: 0, 1, 2, ..."""
    starts_k: Any
    """(requests + 1,) int32: the first row of each request's first page, for a kernel without tables."""
    count: Any
    """(1,) int32: how many of the requests there are, for a kernel that reads it where the others lie."""


@dataclass(frozen=True)
class Reading:
    """The requests of a step whose prompts are being read, packed one after the other."""

    starts_q: Any
    starts_k: Any
    max_q: int
    max_k: int
    rows: Any | None
    """Where their keys and values lie, with those of earlier pieces of the prompts; None: there are no earlier ones."""


@dataclass(frozen=True)
class Kernels:
    """What computes it; see `flash_kernels`."""

    name: str
    read: Callable[..., Any]
    """(query, key, value, starts_q, starts_k, max_q, max_k, scale): packed requests, causal from the end of each."""
    answer: Callable[..., Any]
    """(query, pages_k, pages_v, answering, scale): one new token per request; zeros where there is no request.

    With `any_pages` also `out`: where the answers go, as many as `answering.count` says.
    """
    write: Callable[..., None]
    """(key, value, rows, pages_k, pages_v): puts new keys and values there."""
    page_multiple: int = 1
    """What the size of a page has to be a multiple of."""
    any_pages: bool = True
    """Whether `answer` finds all pages of a request, and any number of requests; else a request has to lie in one."""


@dataclass(frozen=True)
class Step:
    """What all layers need to know of one step, worked out once."""

    kernels: Kernels

    write_rows: Any
    """(tokens,) int64: where the new keys and values go."""
    answering: Answering | None
    reading: Reading | None


class Places:
    """Where the requests of a step read and write, as transformers asks its cache for it while it prepares the step.

    Of a request that answers only its pages are reported. transformers would tell every one of its tokens, in a list of
    all tokens of all requests: with 400 requests of 800 tokens that took the CPU longer than the step took the GPU.
    """

    def __init__(self, cache: Any, kernels: Kernels) -> None:
        self._plain = cache.extend_read_and_write_indices
        self._allocator = next(iter(cache.cache_allocators.values()))
        self._any_pages = kernels.any_pages
        self.lengths: list[int] = []
        """Of the requests at the beginning of the step that answer: tokens so far, with the new one."""
        self.requests = 0
        self.longest = 0
        """New tokens of the request that has most of them."""
        self.earlier = False
        """Whether a prompt is read of which pieces are in the cache already."""
        self._lists: tuple[list[int] | None, list[int]] = None, []

    def extend(
        self,
        request_id: str,
        past_length: int,
        query_length: int,
        read_index: list[list[int]] | None,
        write_index: list[list[int]],
    ) -> None:
        """Add one request to the step's lists of rows; in the place of the cache's `extend_read_and_write_indices`."""
        before = len(write_index[0])
        if before == 0:
            self.lengths, self.requests, self.longest, self.earlier = [], 0, 0, False
            self._lists = None if read_index is None else read_index[0], write_index[0]
        self.requests, self.longest = self.requests + 1, max(self.longest, query_length)
        page_size = self._allocator.tokens_per_page
        # As soon as one reads a prompt, the kernel for prompts reads the rest.
        answers = query_length == 1 and before == len(self.lengths) and (self._any_pages or past_length < page_size)
        self.earlier |= past_length > 0 and not answers
        if read_index is None or not answers:
            self._plain(request_id, past_length, query_length, read_index, write_index)
            return
        self.lengths.append(past_length + 1)
        blocks = self._allocator.block_table[request_id][: past_length // page_size + 1]
        rows = [block * self._allocator.block_physical_stride for block in blocks]
        write_index[0].append(rows[-1] + past_length % page_size)
        read_index[0].extend(rows)

    @property
    def rows(self) -> tuple[int, int]:
        """How many rows the step reads and writes."""
        read, written = self._lists
        return len(read or ()), len(written)


class Slots:
    """What recorded pieces see of a step: where its keys and values go, and the requests that answer."""

    def __init__(self, kernels: Kernels, cache: Any, tokens: int, requests: int) -> None:
        import torch

        self.kernels = kernels
        allocator = next(iter(cache.cache_allocators.values()))
        self._trash = allocator.write_trash_index
        self.rows = torch.full((tokens,), self._trash, dtype=torch.int64, device=cache.device)
        sizes = (requests, cache.num_blocks), (requests,), (1,)
        tables, lengths, count = (torch.zeros(size, dtype=torch.int32, device=cache.device) for size in sizes)
        self.answering = Answering(tables, lengths, None, None, count)

    def fill(self, step: Step, tokens: int) -> None:
        """Take over a step, which is padded to so many tokens."""
        written = len(step.write_rows)
        self.rows[:written].copy_(step.write_rows)
        self.rows[written:tokens].fill_(self._trash)
        now, here = step.answering, self.answering
        here.count.fill_(0 if now is None else len(now.lengths))
        if now is not None:
            requests, pages = now.tables.shape
            here.tables[:requests, :pages].copy_(now.tables)
            here.lengths[:requests].copy_(now.lengths)


def make_step(inputs: Any, places: Places, kernels: Kernels) -> Step:
    """Work out a step from what transformers passes to the model, and from where its requests lie.

    Runs on the device, without waiting for it. Inputs may be padded: what attention sees is not.
    """
    allocator = next(iter(inputs["cache"].cache_allocators.values()))
    starts_k = inputs["cu_seq_lens_k"][FULL_ATTENTION]
    if inputs["block_table"] is not None:
        return _answering_step(inputs["block_table"][0], starts_k, allocator, kernels)
    read, written = places.rows
    write_rows, read_rows = inputs["write_index"][0][:written], inputs["read_index"][0][:read]
    starts_q, starts_k = (starts[: places.requests + 1] for starts in (inputs["cu_seq_lens_q"], starts_k))
    max_q, max_k = places.longest, inputs["max_length_k"][FULL_ATTENTION]
    if read_rows.numel() == 0:
        return Step(kernels, write_rows, None, Reading(starts_q, starts_k, max_q, max_k, None))
    page_size, count = allocator.tokens_per_page, len(places.lengths)
    pages = [-(-length // page_size) for length in places.lengths]
    answering, reading = None, None
    if count:
        answering = _answering(starts_k[: count + 1].diff(), read_rows, max(pages), page_size)
    if count < len(starts_q) - 1:
        rows = read_rows[sum(pages) :] if places.earlier else None
        reading = Reading(starts_q[count:] - count, starts_k[count:] - starts_k[count], max_q, max_k, rows)
    return Step(kernels, write_rows, answering, reading)


def _answering_step(tables: Any, starts_k: Any, allocator: Any, kernels: Kernels) -> Step:
    """Every request has one new token, and transformers knows their pages (-1 where there is none)."""
    import torch

    page_size = allocator.tokens_per_page
    lengths = starts_k.diff()
    last = (lengths - 1).clamp(min=0)
    tables = tables.clamp(min=0)
    if not kernels.any_pages:
        tables = tables[:, :1]
    pages = tables.gather(1, (last // page_size)[:, None].long())[:, 0]
    rows = pages.long() * page_size + last % page_size
    rows = torch.where(lengths > 0, rows, allocator.write_trash_index)
    return Step(kernels, rows, _placed(tables, lengths, page_size), None)


def _answering(lengths: Any, page_rows: Any, most_pages: int, page_size: int) -> Answering:
    """Make tables of the pages whose first rows were reported one after the other."""
    import torch

    ends = ((lengths + page_size - 1) // page_size).cumsum(0)
    starts = torch.nn.functional.pad(ends[:-1], (1, 0))
    places = starts[:, None] + torch.arange(most_pages, device=lengths.device)
    tables = page_rows[torch.minimum(places, ends[:, None] - 1).long()] // page_size
    return _placed(tables.int(), lengths, page_size)


def _placed(tables: Any, lengths: Any, page_size: int) -> Answering:
    import torch

    starts_q = torch.arange(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    starts_k = torch.nn.functional.pad(tables[:, 0] * page_size, (0, 1))
    count = torch.full((1,), len(lengths), dtype=torch.int32, device=lengths.device)
    return Answering(tables.contiguous(), lengths, starts_q, starts_k, count)


def forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    step: Step | Recording | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attention over packed requests, as transformers' AttentionInterface calls it: (1, heads, tokens, size) each.

    Returns (1, tokens, heads, size). Raises ValueError outside the continuous engine and for what the kernel has not.
    """
    import torch

    if step is None or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("torch_flash is for the continuous engine, without soft caps and attention sinks.")
    pages_k, pages_v = cache.layer_to_allocator[module.layer_idx].get_cache_for_block_table(module.layer_idx)
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    if isinstance(step, Recording):
        return _record(step, (query, key, value), pages_k, pages_v, scaling).unsqueeze(0), None
    parts = _write_and_answer(step, (query, key, value), pages_k, pages_v, scaling)
    if step.reading is not None:
        parts.append(_read(step, step.reading, (query, key, value), pages_k, pages_v, scaling))
    answer = parts[0] if len(parts) == 1 else torch.cat(parts)
    return answer.unsqueeze(0), None


def _record(recording: Recording, states: Sequence[Any], pages_k: Any, pages_v: Any, scale: float | None) -> Any:
    """Record what can be, and leave the rest to each step; return where the answers will be, (tokens, heads, size)."""
    query, key, value = states
    answer, slots = recording.answer(query), recording.slots
    if slots is not None:
        slots.kernels.write(key, value, slots.rows[: len(key)], pages_k, pages_v)
        slots.kernels.answer(query, pages_k, pages_v, slots.answering, scale, out=answer)

    def attend(now: Step, *states: Any) -> None:
        begin, end = len(now.answering.lengths) if now.answering else 0, len(now.write_rows)
        if slots is None:
            for part in _write_and_answer(now, states, pages_k, pages_v, scale):
                answer[:begin].copy_(part)
        if now.reading is not None:
            answer[begin:end].copy_(_read(now, now.reading, states, pages_k, pages_v, scale))

    recording.cut(states, attend)
    return answer


def _write_and_answer(step: Step, states: Sequence[Any], pages_k: Any, pages_v: Any, scale: float | None) -> list[Any]:
    """Write keys and values to the pages; return the answers of those that answer, (requests, heads, size), if any."""
    query, key, value = (one[: len(step.write_rows)] for one in states)
    step.kernels.write(key, value, step.write_rows, pages_k, pages_v)
    if (now := step.answering) is None:
        return []
    return [step.kernels.answer(query[: len(now.lengths)], pages_k, pages_v, now, scale)]


def _read(step: Step, reading: Reading, states: Sequence[Any], pages_k: Any, pages_v: Any, scale: float | None) -> Any:
    """Return the answers of those whose prompts are being read, once their keys are written: (tokens, heads, size)."""
    count = len(step.answering.lengths) if step.answering else 0
    query, key, value = (one[count : len(step.write_rows)] for one in states)
    if (rows := reading.rows) is not None:
        key, value = (pages.flatten(0, 1).index_select(0, rows) for pages in (pages_k, pages_v))
    starts = reading.starts_q.int(), reading.starts_k.int()
    return step.kernels.read(query, key, value, *starts, reading.max_q, reading.max_k, scale)
