"""A step with prompts in it as CUDA graphs: all between reading prompts and reading prompts is one graph.

How prompts are read differs from step to step: how many there are, how long each of them is. All else depends on the
number of tokens, and finds what it has to know of the step in memory (`flash.Slots`). So a step is padded to a number
for which there are graphs; what reads prompts is started by itself and sees the real tokens only. To start a layer
kernel by kernel takes the CPU a millisecond, to start a graph some microseconds.

The model is recorded as it is: where it calls its attention, the graph under way ends and the next begins. After its
last layer comes what turns states into tokens; that depends on the number of requests alone, and is recorded apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.continuous_options import Options

if TYPE_CHECKING:
    from benchmark.node.continuous.flash import Slots

# Numbers of tokens to pad to. Up to some hundred a step takes as long as reading the weights, whatever it holds; then
# padding costs its share: at most a sixteenth, half of that on average.
LEAST = 128
PER_DOUBLING = 16
# Longer steps keep the GPU busy for longer than the CPU takes to start them kernel by kernel.
GRAPH_TOKENS = 2048
LEAST_REQUESTS = 16

Attend = Callable[..., Any]


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


@dataclass
class Pieces:
    """What was recorded: graphs, and what is called between them."""

    graphs: list[Any] = field(default_factory=list)
    between: list[Attend] = field(default_factory=list)
    """Called with what is to be known of the step, see `flash.Step`."""

    def replay(self, step: Any) -> None:
        """Run the step on the current stream."""
        first, *others = self.graphs
        first.replay()
        for attend, graph in zip(self.between, others, strict=True):
            attend(step)
            graph.replay()

    def replay_graphs(self) -> None:
        """Run the graphs alone: as long as that takes, without the attentions between them."""
        for graph in self.graphs:
            graph.replay()


class Recording:
    """What is being recorded; the model passes it to its attention in a step's place."""

    def __init__(self, pool: Any, answers: dict[tuple[int, ...], Any], most: int, slots: Slots | None = None) -> None:
        self.pieces = Pieces()
        self.slots = slots
        """What pieces see of a step; None: they see nothing of it."""
        self._pool, self._answers, self._most = pool, answers, most

    def record(self, forward: Callable[[], None]) -> Pieces:
        """Call `forward`, which runs the model, and return what it did, in pieces. On the current stream."""
        import torch

        torch.cuda.synchronize()
        self._begin()
        try:
            forward()
        except BaseException:
            with suppress(RuntimeError):  # what is half recorded is no graph; the first error says why
                self.pieces.graphs[-1].capture_end()
            raise
        self.pieces.graphs[-1].capture_end()
        return self.pieces

    def answer(self, query: Any) -> Any:
        """Return where the attention's answer lies, for queries (tokens, heads, size): the layers take turns in one."""
        import torch

        shape = self._most, *query.shape[1:]
        if shape not in self._answers:
            self._answers[shape] = torch.zeros(shape, dtype=query.dtype, device=query.device)
        return self._answers[shape][: len(query)]

    def cut(self, states: Sequence[Any], attend: Callable[..., None]) -> None:
        """End a piece and begin the next.

        `states`: query, key and value, (tokens, heads, size) each, which the piece before computes; `attend(step,
        *states)` writes what the piece after reads.
        """
        self.pieces.graphs[-1].capture_end()
        seen = tuple(_in_place(state) for state in states)
        self.pieces.between.append(lambda step: attend(step, *seen))
        self._begin()

    def _begin(self) -> None:
        import torch

        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        self.pieces.graphs.append(graph)


class _Memory:
    """Where a tensor lies, by CUDA's array interface, which knows no bfloat16."""

    def __init__(self, whole: Any) -> None:
        self.__cuda_array_interface__ = {
            "data": (whole.data_ptr(), False),
            "shape": tuple(whole.shape),
            "strides": tuple(stride * whole.element_size() for stride in whole.stride()),
            "typestr": f"<i{whole.element_size()}",
            "version": 3,
        }


def _in_place(tensor: Any) -> Any:
    """Return the tensor without keeping its memory: the pieces that follow may use it, once attention has read it."""
    import torch

    whole = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    return torch.as_tensor(_Memory(tensor.view(whole)), device=tensor.device).view(tensor.dtype)
