"""Places of the requests of a step: in the step's tokens, and in the pages of transformers' cache.

A step of continuous batching holds answering requests, with one new token each, followed by requests whose prompts are
being read. Kernels read these places from memory, so that one CUDA graph serves every step of its size.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

# New tokens of one request that are read together.
TILE_ROWS = 64
# Fields of a tile: request, first row, tokens, earlier tokens. The numbers of requests and tiles come first of all.
TILE, HEAD = 4, 4
# Every part begins at a multiple of 16 bytes; otherwise kernels would be compiled for each alignment.
TOGETHER = 4

Tile = tuple[int, int, int, int]


@dataclass(frozen=True)
class Requests:
    """The requests of a step, all int32 on the device; there may be room for more."""

    counts: Any
    """(4,): the number of answering requests, which come first, and the number of tiles; the rest is not used."""
    lengths: Any
    """(requests,): tokens so far, including the new ones; 0 where there is no request."""
    first_pages: Any
    """(requests,): where in `pages` the pages of each request begin."""
    tiles: Any
    """(tiles, 4): new tokens of a prompt that are read together, up to 64: request, first row in the step, number of
    tokens, and number of earlier tokens of the request; the tile with the most earlier tokens comes first."""
    pages: Any
    """(pages,): the page numbers of each request in order, one request after the other."""


class Places:
    """Where the requests of the next step read and write; replaces the indices that transformers asks its cache for.

    Only the pages of each request are stored. transformers would list every token of all requests: with 400 requests of
    800 tokens that took the CPU longer than the step took the GPU.
    """

    def __init__(self, cache: Any) -> None:
        self._plain = cache.extend_read_and_write_indices
        self._allocator = next(iter(cache.cache_allocators.values()))
        self._device = cache.device
        self._lengths: list[int] = []
        self._first_pages: list[int] = []
        self._pages: list[int] = []
        self._tiles: list[Tile] = []
        self.answering = 0
        """Answering requests at the beginning of the step."""
        self.written = 0
        """New tokens in the step."""

    @property
    def requests(self) -> int:
        """Number of requests in the step."""
        return len(self._lengths)

    @property
    def tiles(self) -> int:
        """Number of prompt tiles in the step."""
        return len(self._tiles)

    def extend(
        self,
        request_id: str,
        past_length: int,
        query_length: int,
        read_index: list[list[int]] | None,
        write_index: list[list[int]],
    ) -> None:
        """Add a request to the step; replaces the cache's `extend_read_and_write_indices`."""
        row = len(write_index[0])
        if row == 0:
            self._lengths, self._first_pages, self._pages, self._tiles = [], [], [], []
            self.answering = 0
        page_size, stride = self._allocator.tokens_per_page, self._allocator.block_physical_stride
        length = past_length + query_length
        blocks = self._allocator.block_table[request_id][: -(-length // page_size)]
        number = len(self._lengths)
        self._lengths.append(length)
        self._first_pages.append(len(self._pages))
        self._pages += [block * stride // page_size for block in blocks]
        # After the first request that reads a prompt, all others go to the kernel for prompts.
        if query_length == 1 and number == self.answering:
            self.answering += 1
            write_index[0].append(blocks[-1] * stride + past_length % page_size)
        else:
            self._plain(request_id, past_length, query_length, None, write_index)
            self._tiles += tiles_of(number, row, query_length, past_length)
        self.written = len(write_index[0])

    def packed(self, requests: int | None = None, tiles: int | None = None) -> Any:
        """Return the step as one tensor for `unpacked`, with room for that many requests and tiles (None: exactly)."""
        import torch

        requests, tiles = _room(requests or self.requests), tiles or max(1, self.tiles)
        flat = array("i", bytes(4 * (HEAD + 2 * requests + TILE * tiles)))
        flat[:2] = array("i", (self.answering, self.tiles))
        begin = HEAD
        for part, room in (
            (self._lengths, requests),
            (self._first_pages, requests),
            ([one for tile in longest_first(self._tiles) for one in tile], TILE * tiles),
        ):
            flat[begin : begin + len(part)] = array("i", part)
            begin += room
        flat.extend(self._pages)
        packed = torch.frombuffer(flat, dtype=torch.int32)
        return packed.pin_memory() if self._device.type == "cuda" else packed

    def here(self) -> Requests:
        """Return the step's requests on the device."""
        flat = self.packed().to(self._device, non_blocking=True)
        return unpacked(flat, self.requests, max(1, self.tiles))


class Slots:
    """What recorded steps see of the step that runs: where its keys and values go, and its requests."""

    def __init__(self, cache: Any, tokens: int, requests: int) -> None:
        import torch

        self._requests, self._tiles = requests, most_tiles(tokens, requests)
        self.rows = torch.zeros(tokens, dtype=torch.int64, device=cache.device)
        size = HEAD + 2 * _room(requests) + TILE * self._tiles + cache.num_blocks
        self._flat = torch.zeros(size, dtype=torch.int32, device=cache.device)
        self.requests = unpacked(self._flat, requests, self._tiles)

    def fill(self, places: Places, write_rows: Any) -> None:
        """Set the current step. `write_rows`: (tokens,) int64; padding uses a row that is never read."""
        packed = places.packed(self._requests, self._tiles)
        self._flat[: len(packed)].copy_(packed, non_blocking=True)
        self.rows[: len(write_rows)].copy_(write_rows)


def unpacked(flat: Any, requests: int, tiles: int) -> Requests:
    """Return the requests that `Places.packed` stored, given the same numbers."""
    room = _room(requests)
    sizes = HEAD, room, room, TILE * tiles
    counts, lengths, first_pages, tile_rows, pages = flat.split([*sizes, len(flat) - sum(sizes)])
    return Requests(counts, lengths[:requests], first_pages[:requests], tile_rows.view(tiles, TILE), pages)


def answering(tables: Any, lengths: Any) -> Requests:
    """Return the layout of a step where all answer: tables (requests, pages), lengths (requests,), on the device."""
    import torch

    requests, width = tables.shape
    first_pages = torch.arange(0, requests * width, width, dtype=torch.int32, device=tables.device)
    counts = torch.zeros(HEAD, dtype=torch.int32, device=tables.device)
    counts[0].fill_(requests)
    tiles = torch.zeros((1, TILE), dtype=torch.int32, device=tables.device)
    return Requests(counts, lengths.int(), first_pages, tiles, tables.int().flatten())


def tiles_of(request: int, row: int, tokens: int, before: int) -> list[Tile]:
    """Return the tiles of a request, given the row of its first new token and its number of earlier tokens."""
    begins = range(0, tokens, TILE_ROWS)
    return [(request, row + begin, min(TILE_ROWS, tokens - begin), before + begin) for begin in begins]


def longest_first(tiles: list[Tile]) -> list[Tile]:
    """Return the tiles in the order of processing: the one that sees the most tokens takes longest and comes first."""
    return sorted(tiles, key=lambda tile: tile[2] + tile[3], reverse=True)


def most_tiles(tokens: int, requests: int) -> int:
    """Return the largest number of tiles that a step of so many tokens and requests may have."""
    return -(-tokens // TILE_ROWS) + min(tokens, requests)


def _room(requests: int) -> int:
    return -(-requests // TOGETHER) * TOGETHER
