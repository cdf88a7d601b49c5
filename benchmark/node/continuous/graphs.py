"""CUDA graphs for steps with prompts: the token counts that have a graph, and how a graph is recorded.

The number of requests in a step and their lengths differ from step to step; kernels find them in memory (`layout`). All
else depends only on the number of tokens, so a step is padded to a number that has a graph. Launching a step kernel by
kernel takes the CPU longer than most steps take the GPU. Choosing tokens depends only on the number of requests, and is
recorded separately.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from benchmark.continuous_options import Options

# Token counts to pad to. Up to a few hundred tokens a step takes as long as reading the weights. Above that padding
# costs its share: at most a sixteenth, half of that on average.
LEAST = 128
PER_DOUBLING = 16
# Longer steps keep the GPU busy for longer than the CPU takes to launch them kernel by kernel.
GRAPH_TOKENS = 2048
LEAST_REQUESTS = 16


def wanted(options: Options, device: str) -> int:
    """Return the largest number of tokens for which a step with prompts is recorded here; 0: none is."""
    if device == "cpu" or options.use_cuda_graph is False:
        return 0
    return GRAPH_TOKENS if options.graph_tokens is None else options.graph_tokens


def sizes(most: int) -> list[int]:
    """Return the numbers of tokens, up to `most`, to record a step for."""
    found, size = [], LEAST
    while size < most:
        found.append(size)
        size += max(LEAST // 4, 2 ** (size.bit_length() - 1) // PER_DOUBLING)
    return [*found, most]


def request_counts(most: int) -> list[int]:
    """Return the numbers of requests, up to `most`, to record the choice of tokens for."""
    found, count = [], LEAST_REQUESTS
    while count < most:
        found.append(count)
        count *= 2
    return [*found, most]


class Graph:
    """A function's work on the GPU, recorded on the current stream with memory from a pool, for replay."""

    def __init__(self, pool: Any, run: Callable[[], None]) -> None:
        import torch

        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            run()
        except BaseException:
            with suppress(RuntimeError):  # an incomplete recording is no graph; the first error says why
                self._graph.capture_end()
            raise
        self._graph.capture_end()

    def replay(self) -> None:
        """Run it again on the current stream, with the current contents of its memory."""
        self._graph.replay()
