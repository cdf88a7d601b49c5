"""Steps with prompts of every size, recorded before the measurement and replayed."""

from __future__ import annotations

import bisect
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmark.node.continuous import flash, graphs
from benchmark.node.continuous.alike import difference
from benchmark.node.continuous.layout import Places, Slots

# How far a state of a replayed step may differ from the same step without graphs, with the same kernels.
TOLERANCE = 0.05
# How often each recorded step is timed; the minimum counts.
TIMED = 2

Choose = Callable[[dict[str, Any], Any, Any, Any], None]
"""transformers' function to run a step and choose its tokens: (inputs, carry_over_ids, previous outputs, outputs)."""


class WrongStep(RuntimeError):
    """A recorded step computes something different from the step itself."""


class PromptSteps:
    """One set of graphs with its own inputs: transformers alternates between two pairs of inputs.

    `io`: transformers' inputs and outputs; `pool`: the graphs' memory pool; `most_tokens`: of a step; `slots`: what the
    graphs see of a step.
    """

    def __init__(
        self, model: Any, io: Any, pool: Any, most_tokens: int, most_requests: int, slots: Slots, kernels: flash.Kernels
    ) -> None:
        self.sizes = graphs.sizes(most_tokens)
        """Token counts to record and, once they are timed, those to use."""
        self._counts = graphs.request_counts(most_requests)
        self._model, self._io, self._pool, self._slots, self._kernels = model, io, pool, slots, kernels
        self._layers: dict[int, graphs.Graph] = {}
        self._choices: dict[int, graphs.Graph] = {}
        self._inputs, _, self._previous, self._outputs = (one.clone() for one in self._pair())
        self._states: Any = None
        """(1, most tokens, size): the last layer's output for each token."""
        self._output: Callable[..., Any]
        """The output class of the model's layers: a family's own, as its head may read more of it."""

    def size(self, tokens: int) -> int | None:
        """Return the number of tokens to pad a step to; None: it is longer than all that are recorded."""
        return self.sizes[bisect.bisect_left(self.sizes, tokens)] if tokens <= self.sizes[-1] else None

    def keep_fastest(self) -> None:
        """Drop each size that a larger one beats: a library's product of 448 rows can take longer than one of 512."""
        fastest = float("inf")
        for size in reversed(self.sizes):
            self._layers[size].replay()
            seconds = min(self._timed(size) for _ in range(TIMED))
            if seconds < fastest:
                fastest = seconds
            else:
                del self._layers[size]
        self.sizes = [size for size in self.sizes if size in self._layers]

    def _timed(self, size: int) -> float:
        _wait()
        began = time.perf_counter()
        self._layers[size].replay()
        _wait()
        return time.perf_counter() - began

    def has(self, size: int) -> bool:
        """Return whether a step of so many tokens is recorded."""
        return size in self._layers

    def run(self, inputs: dict[str, Any], places: Places) -> None:
        """Run the step that transformers has prepared, padded to a recorded size, on the current stream."""
        outputs = self._copy()
        self._slots.fill(places, inputs["write_index"][0])
        self._layers[inputs["input_ids"].shape[1]].replay()
        count = self._counts[bisect.bisect_left(self._counts, places.requests)]
        self._choices[count].replay()
        outputs[:, :count].copy_(self._outputs[:, :count])

    def record(self, inputs: dict[str, Any], places: Places, choose: Choose) -> None:
        """Record a step of the warm-up; the longest must come first.

        Raises WrongStep if its states differ from those of the same step without graphs.
        """
        size = inputs["input_ids"].shape[1]
        # Different tokens at each place: with the same token everywhere, wrong places would not show.
        inputs["input_ids"].random_(0, self._model.config.get_text_config().vocab_size)
        self._copy()
        own = {**inputs, **{name: self._own(inputs[name]) for name in ("input_ids", "position_ids")}}

        def layers(step: flash.Step) -> Any:
            self._io.carry_over_tokens(own["input_ids"], self._own(self._pair()[1]), self._previous)
            answer = self._model.base_model(**own, step=step)
            self._output = type(answer)
            return answer.last_hidden_state

        step = flash.make_step(inputs, places, self._kernels)
        # Both kernels, as in the graph: none may be loaded during the recording.
        expected = layers(dataclasses.replace(step, answers=True, reads=True))
        if self._states is None:
            self._states = torch.zeros_like(expected)
        states = self._states[:, :size]
        self._slots.fill(places, inputs["write_index"][0])
        seen = flash.Step(self._kernels, self._slots.rows[:size], self._slots.requests)
        recorded = graphs.Graph(self._pool, lambda: states.copy_(layers(seen)))
        states.zero_()
        recorded.replay()
        worst = difference(states, expected)
        if not worst <= TOLERANCE:
            raise WrongStep(f"a step of {size} tokens in CUDA graphs is off by {worst:.3f}")
        if not self._choices:
            for count in reversed(self._counts):
                self._choices[count] = self._record_choice(own, count, choose)
        self._layers[size] = recorded  # last: without its choice it is incomplete

    def _record_choice(self, own: dict[str, Any], count: int, choose: Choose) -> graphs.Graph:
        """Record the choice of tokens for so many requests, for any step."""
        carried, longest = self._own(self._pair()[1]), self._states.shape[1]

        def run() -> None:
            # Where there is no request, the index may be from an earlier step.
            places = self._own(own["logits_indices"][:count]).clamp(max=longest - 1)
            few = {"logits_indices": places, "logits_to_keep": places}
            few["logits_processor_args"] = self._own(own["logits_processor_args"][:, :count])
            with _given(self._model.base_model, self._output(last_hidden_state=self._states)):
                choose({**own, **few}, carried, self._previous, self._outputs)

        run()
        return graphs.Graph(self._pool, run)

    def _pair(self) -> tuple[Any, Any, Any, Any]:
        """Return the prepared step's data: all small inputs, the carried-over ones among them, and the outputs."""
        now = self._io.io_pairs[self._io.current_pair].device_io if hasattr(self._io, "io_pairs") else self._io
        return now._bulk_input_tensor, *self._io.get_cb_kwargs()

    def _copy(self) -> Any:
        """Copy the prepared inputs; return the destination of the outputs."""
        small, _, previous, outputs = self._pair()
        self._inputs.copy_(small)
        self._previous.copy_(previous)
        return outputs

    def _own(self, small: Any) -> Any:
        """Return our copy of one of the small inputs."""
        return self._inputs.as_strided(small.shape, small.stride(), small.storage_offset())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _given(layers: Any, output: Any) -> Iterator[None]:
    """Make this the output of the model's layers, and of their inner decoder, which OPT's head calls."""
    asked = [one for one in (layers, getattr(layers, "decoder", None)) if one is not None]
    for one in asked:
        one.forward = lambda *_, **__: output
    try:
        yield
    finally:
        for one in asked:
            del one.forward
