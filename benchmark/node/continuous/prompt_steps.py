"""Every kind of step with prompts in it, recorded before anything is measured, and run from what was recorded."""

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

# By which a state of a replayed step may differ from the same step without graphs, by the same kernels.
TOLERANCE = 0.05
# How often each recorded step is timed; the least counts.
TIMED = 2

Choose = Callable[[dict[str, Any], Any, Any, Any], None]
"""transformers' way to run a step and to choose its tokens: (inputs, carry_over_ids, previous outputs, outputs)."""


class WrongStep(RuntimeError):
    """A recorded step computes something else than the step itself."""


class PromptSteps:
    """One set of graphs, with inputs of its own: transformers has two pairs of inputs, which take turns.

    `io`: transformers' inputs and outputs; `pool`: of the graphs' memory; the most tokens of a step; `slots`: through
    which its graphs see a step.
    """

    def __init__(
        self, model: Any, io: Any, pool: Any, most_tokens: int, most_requests: int, slots: Slots, kernels: flash.Kernels
    ) -> None:
        self.sizes = graphs.sizes(most_tokens)
        """Numbers of tokens to record, and once they are timed those that are used."""
        self._counts = graphs.request_counts(most_requests)
        self._model, self._io, self._pool, self._slots, self._kernels = model, io, pool, slots, kernels
        self._layers: dict[int, graphs.Graph] = {}
        self._choices: dict[int, graphs.Graph] = {}
        self._inputs, _, self._previous, self._outputs = (one.clone() for one in self._pair())
        self._states: Any = None
        """(1, most tokens, size): what the last layer makes of each token."""
        self._output: Callable[..., Any]
        """What the model's layers return: a family's own class, which its head may read more of."""

    def size(self, tokens: int) -> int | None:
        """Return to how many tokens a step is padded; None: it is longer than those that are recorded."""
        return self.sizes[bisect.bisect_left(self.sizes, tokens)] if tokens <= self.sizes[-1] else None

    def keep_fastest(self) -> None:
        """Forget each size that a larger one beats: a library's product of 448 rows can take longer than one of 512."""
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
        """Whether a step of so many tokens is recorded."""
        return size in self._layers

    def run(self, inputs: dict[str, Any], places: Places) -> None:
        """Run the step that transformers has prepared, padded to a size that is recorded, on the current stream."""
        outputs = self._copy()
        self._slots.fill(places, inputs["write_index"][0])
        self._layers[inputs["input_ids"].shape[1]].replay()
        count = self._counts[bisect.bisect_left(self._counts, places.requests)]
        self._choices[count].replay()
        outputs[:, :count].copy_(self._outputs[:, :count])

    def record(self, inputs: dict[str, Any], places: Places, choose: Choose) -> None:
        """Record a step of the warm-up; the longest has to come first.

        Raises WrongStep where its states are others than those of the same step without graphs.
        """
        size = inputs["input_ids"].shape[1]
        # Other tokens at each place: with one at all, each would be answered like the others.
        inputs["input_ids"].random_(0, self._model.config.get_text_config().vocab_size)
        self._copy()
        own = {**inputs, **{name: self._own(inputs[name]) for name in ("input_ids", "position_ids")}}

        def layers(step: flash.Step) -> Any:
            self._io.carry_over_tokens(own["input_ids"], self._own(self._pair()[1]), self._previous)
            answer = self._model.base_model(**own, step=step)
            self._output = type(answer)
            return answer.last_hidden_state

        step = flash.make_step(inputs, places, self._kernels)
        # Both kernels, as in the graph: none may be loaded while it is recorded.
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
            raise WrongStep(f"a step of {size} tokens in CUDA graphs is wrong by {worst:.3f}")
        if not self._choices:
            for count in reversed(self._counts):
                self._choices[count] = self._record_choice(own, count, choose)
        self._layers[size] = recorded  # at the end: without its choice it is not whole

    def _record_choice(self, own: dict[str, Any], count: int, choose: Choose) -> graphs.Graph:
        """Record how the tokens of so many requests are chosen, whatever step their states are of."""
        carried, longest = self._own(self._pair()[1]), self._states.shape[1]

        def run() -> None:
            # Where no request is, an earlier step's place may stand.
            places = self._own(own["logits_indices"][:count]).clamp(max=longest - 1)
            few = {"logits_indices": places, "logits_to_keep": places}
            few["logits_processor_args"] = self._own(own["logits_processor_args"][:, :count])
            with _given(self._model.base_model, self._output(last_hidden_state=self._states)):
                choose({**own, **few}, carried, self._previous, self._outputs)

        run()
        return graphs.Graph(self._pool, run)

    def _pair(self) -> tuple[Any, Any, Any, Any]:
        """Return what the step that is prepared has: all small inputs, of these what is carried over, outputs."""
        now = self._io.io_pairs[self._io.current_pair].device_io if hasattr(self._io, "io_pairs") else self._io
        return now._bulk_input_tensor, *self._io.get_cb_kwargs()

    def _copy(self) -> Any:
        """Take over the inputs that are prepared; return where the outputs go."""
        small, _, previous, outputs = self._pair()
        self._inputs.copy_(small)
        self._previous.copy_(previous)
        return outputs

    def _own(self, small: Any) -> Any:
        """Return one of the small inputs as it lies here."""
        return self._inputs.as_strided(small.shape, small.stride(), small.storage_offset())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _given(layers: Any, output: Any) -> Iterator[None]:
    """Have the model take this for what its layers return; OPT's head asks a part of them, which does it all."""
    asked = [one for one in (layers, getattr(layers, "decoder", None)) if one is not None]
    for one in asked:
        one.forward = lambda *_, **__: output
    try:
        yield
    finally:
        for one in asked:
            del one.forward
