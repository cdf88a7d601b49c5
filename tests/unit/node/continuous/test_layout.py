"""Where a step's requests lie, as kernels find it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.continuous import layout

PAGE = 8
# (new tokens, tokens before) of each request of a step.
STEPS = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 90)), min_size=1, max_size=8)


def prepared(step: list[tuple[int, int]], answering: int = 0) -> layout.Places:
    """Return the places of a step: first so many requests with one new token each, then those given."""
    every = [(1, 5 + number) for number in range(answering)] + step
    tables, free = {}, iter(range(10_000))
    for number, (new, before) in enumerate(every):
        tables[str(number)] = [next(free) for _ in range(-(-(new + before) // PAGE))]
    allocator = SimpleNamespace(tokens_per_page=PAGE, block_physical_stride=PAGE, block_table=tables)

    def plain(request: str, before: int, new: int, read: object, write: list[list[int]]) -> None:
        rows = [tables[request][token // PAGE] * PAGE + token % PAGE for token in range(before, before + new)]
        write[0].extend(rows)

    cache = SimpleNamespace(
        extend_read_and_write_indices=plain,
        cache_allocators={"full_attention": allocator},
        device=torch.device("cpu"),
        num_blocks=10_000,
    )
    places, rows = layout.Places(cache), [[]]  # type: ignore[var-annotated]
    for number, (new, before) in enumerate(every):
        places.extend(str(number), before, new, None, rows)
    every_rows = [
        tables[str(n)][t // PAGE] * PAGE + t % PAGE for n, (new, b) in enumerate(every) for t in range(b, b + new)
    ]
    assert rows[0] == every_rows
    assert places.written == len(every_rows)
    slots = layout.Slots(cache, 2048, 16)
    slots.fill(places, torch.arange(places.written))
    assert_alike(places.here(), slots.requests)
    assert slots.rows[: places.written].tolist() == list(range(places.written))
    return places


def assert_alike(given: layout.Requests, other: layout.Requests) -> None:
    """What is recorded sees the very step, whatever it has room for."""
    answering, tiles = given.counts[:2].tolist()
    assert other.counts[:2].tolist() == [answering, tiles]
    assert other.tiles[:tiles].tolist() == given.tiles[:tiles].tolist()
    requests = len(given.lengths)
    assert other.lengths[:requests].tolist() == given.lengths.tolist()
    assert other.first_pages[:requests].tolist() == given.first_pages.tolist()
    assert other.pages[: len(given.pages)].tolist() == given.pages.tolist()


@given(STEPS, st.integers(0, 5))
def test_each_new_token_is_answered_or_read_once(step: list[tuple[int, int]], answering: int) -> None:
    places = prepared(step, answering)
    requests = places.here()
    ones = next((n for n, (new, _) in enumerate(step) if new > 1), len(step))
    assert requests.counts[:2].tolist() == [answering + ones, places.tiles]
    read = sorted(row + n for _, row, tokens, _ in requests.tiles[: places.tiles].tolist() for n in range(tokens))
    assert read == list(range(answering + ones, places.written))
    assert places.tiles <= layout.most_tiles(places.written, places.requests)


@given(STEPS)
def test_a_tile_knows_what_comes_before_it(step: list[tuple[int, int]]) -> None:
    places = prepared(step)
    found = places.here()
    ends = []
    for number, row, tokens, before in found.tiles[: places.tiles].tolist():
        begin = sum(new for new, _ in step[:number])
        assert before == step[number][1] + row - begin
        assert 1 <= tokens <= layout.TILE_ROWS
        ends.append(before + tokens)
    assert ends == sorted(ends, reverse=True)


def test_pages_are_where_the_allocator_put_them() -> None:
    places = prepared([(20, 0), (3, 9)], answering=2)
    found = places.here()
    assert found.lengths.tolist() == [6, 7, 20, 12]
    assert found.first_pages.tolist() == [0, 1, 2, 5]
    assert found.pages.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_every_part_begins_where_a_gpu_reads_16_bytes_at_once() -> None:
    for requests in range(1, 9):
        flat = torch.zeros(layout.HEAD + 2 * 8 + 4 * layout.TILE + 3, dtype=torch.int32)
        found = layout.unpacked(flat, requests, 2)
        for part in (found.counts, found.lengths, found.first_pages, found.tiles, found.pages):
            assert part.storage_offset() * 4 % 16 == 0


def test_a_step_in_which_all_answer_lies_in_one_table() -> None:
    tables = torch.tensor([[3, 1, -1], [2, -1, -1]])
    found = layout.answering(tables.clamp(min=0), torch.tensor([9, 4]))
    assert found.counts[:2].tolist() == [2, 0]
    assert [found.pages[first].item() for first in found.first_pages.tolist()] == [3, 2]
