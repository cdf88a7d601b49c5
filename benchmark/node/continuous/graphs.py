"""Steps with prompts in them as CUDA graphs: for which numbers of tokens there is one, and how it is made.

How many requests a step holds and how long they are differs from step to step; kernels find it in memory (`layout`).
All else depends on the number of tokens, so a step is padded to a number for which there is a graph. To start a step
kernel by kernel takes the CPU longer than most steps take the GPU. What turns states into tokens depends on the number
of requests alone, and is recorded apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from benchmark.continuous_options import Options

# Numbers of tokens to pad to. Up to some hundred a step takes as long as reading the weights, whatever it holds; then
# padding costs its share: at most a sixteenth, half of that on average.
LEAST = 128
PER_DOUBLING = 16
# Longer steps keep the GPU busy for longer than the CPU takes to start them kernel by kernel.
GRAPH_TOKENS = 2048
LEAST_REQUESTS = 16


def wanted(options: Options, device: str) -> int:
    """Return up to how many tokens a step with prompts is recorded here; 0: none."""
    if device == "cpu" or options.use_cuda_graph is False:
        return 0
    return GRAPH_TOKENS if options.graph_tokens is None else options.graph_tokens


def sizes(most: int) -> list[int]:
    """Return the numbers of tokens, up to `most`, for which to record a step."""
    found, size = [], LEAST
    while size < most:
        found.append(size)
        size += max(LEAST // 4, 2 ** (size.bit_length() - 1) // PER_DOUBLING)
    return [*found, most]


def request_counts(most: int) -> list[int]:
    """Return the numbers of requests, up to `most`, for which to record how their tokens are chosen."""
    found, count = [], LEAST_REQUESTS
    while count < most:
        found.append(count)
        count *= 2
    return [*found, most]


class Graph:
    """What a function does on the GPU, recorded on the current stream and in a pool of memory, to be done again."""

    def __init__(self, pool: Any, run: Callable[[], None]) -> None:
        import torch

        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            run()
        except BaseException:
            with suppress(RuntimeError):  # what is half recorded is no graph; the first error says why
                self._graph.capture_end()
            raise
        self._graph.capture_end()

    def replay(self) -> None:
        """Do it again, on the current stream, with what lies in memory now."""
        self._graph.replay()
