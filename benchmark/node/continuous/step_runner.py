"""transformers' runner for the steps of continuous batching, changed where it wastes a GPU's time.

- The contents of a step are worked out once, not in every layer (`flash.make_step`), from pages instead of tokens
  (`layout.Places`).
- Only CUDA graphs' inputs are padded: otherwise one graph for decoding would pad every other step too, to the largest
  number of requests, each as long as the whole step.
- Everything is captured before the measurement: transformers' graphs for every number of answering requests, and our
  own for steps with prompts (`prompt_steps`).
- A step of the warm-up ends before the next one is prepared, and a failure ends the start: transformers would log it
  and continue, until the same step fails during the measurement.
"""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.utils import stream_context

from benchmark.node.continuous import flash, layout
from benchmark.node.continuous.prompt_steps import PromptSteps, WrongStep
from benchmark.node.model.load import has_experts
from benchmark.node.watch.full_memory import is_full

# Pages of the longest request in transformers' own graphs; longer ones are handled like steps with prompts.
MOST_PAGES = 32
# Part of torch's message for an operation that waits for the GPU, where that is forbidden.
WAITS = "synchronizing CUDA operation"
TRANSFORMERS_LOGGER = "ContinuousBatchingLogger"


class StepRunner(ModelRunner):  # type: ignore[misc] # transformers has no types here
    """A runner for `paged_flash`."""

    kernels: flash.Kernels
    places: layout.Places
    """Those of the step prepared last, which runs next."""
    capture_s = 0.0
    """Seconds for capturing CUDA graphs; includes transformers' run of the model before, which loads kernels."""
    graph_tokens = 0
    """The largest number of tokens for which a step with prompts is recorded."""
    prompt_steps: PromptSteps | None = None
    failed: Exception | None = None
    """Why steps with prompts are not recorded."""
    use_cuda_graph_decode: bool
    _strict = False
    """Whether a step that waits for the GPU fails."""
    _error: Exception | None = None
    """Why a required step failed; transformers' warm-up catches the exception."""

    def maybe_pad_inputs(self, num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool) -> tuple[int, int]:
        """Return the sizes to pad the next step to, and remember whether it is padded.

        Zero for what is read from the cache: transformers' list of tokens would be filled and copied for every step,
        with room for the whole cache.
        """
        if not use_decode_fast_path and self.prompt_steps and (size := self.prompt_steps.size(num_q_tokens)):
            self.pad_inputs = True
            return size, 0
        self.pad_inputs = use_decode_fast_path and self.use_cuda_graph_decode
        sizes: tuple[int, int] = super().maybe_pad_inputs(num_q_tokens, 0, use_decode_fast_path)
        return sizes

    def warmup(self, model: Any) -> None:
        """Run a step of every kind and capture the graphs; transformers would do it for graphs alone."""
        # Only experts are known to wait. If another model's step does, it cannot be captured, which ends the start.
        if self.use_cuda_graph_decode and has_experts(model.config.to_dict()) and self._waits(model):
            self.failed = NotImplementedError("a step of the model waits for the GPU, to decide what to compute")
            self.use_cuda_graph_decode, self.cb_config.use_cuda_graph, self.graph_tokens = False, (False, False), 0
        self.pad_inputs = True
        super().warmup(model)
        if self.graph_tokens and not self.supports_logits_to_keep(model):
            self.failed = NotImplementedError("the model has no logits_to_keep")
        elif self.graph_tokens:
            requests = self.cb_config.max_requests_per_batch
            with stream_context(self.inputs_and_outputs.compute_stream):
                slots = layout.Slots(self.cache, self.graph_tokens, requests)
                io, pool = self.inputs_and_outputs, self.graph_pool_id
                self.prompt_steps = PromptSteps(model, io, pool, self.graph_tokens, requests, slots, self.kernels)
            for size in reversed(self.prompt_steps.sizes):
                self.run_one_warmup(model, size, 0)
                if self.prompt_steps.has(size):
                    continue
                if self.failed is not None and (isinstance(self.failed, WrongStep) or is_full(str(self.failed))):
                    raise self.failed
                self.prompt_steps = None  # such steps are launched kernel by kernel, and the result says why
                break
            else:
                with stream_context(self.inputs_and_outputs.compute_stream):
                    self.prompt_steps.keep_fastest()
            self.cache.reset()

    def _waits(self, model: Any) -> bool:
        """Return whether a step waits for the GPU, which a CUDA graph cannot hold: experts launched one by one do.

        Tested outside of a graph: a failed recording leaves torch's memory and the stream in a bad state.
        """
        kind = 1, None if self.cache.max_decode_fast_path_length > 0 else 0
        self.use_cuda_graph_decode = False
        try:
            self.run_one_warmup(model, *kind)  # loads kernels and creates what is kept
            self._strict = True
            self.run_one_warmup(model, *kind)
        except RuntimeError as error:
            if self._error is None or WAITS not in str(self._error):
                raise
            self._error = error.__cause__ = None
            self._wait()  # for what was launched before
            return True
        finally:
            self._strict, self.use_cuda_graph_decode = False, True
        return False

    def compute_batch(self, model: Any, batch_data: dict[str, Any]) -> None:
        """Run a step: the recorded one, if it has prompts and is padded for that."""
        if self.inputs_and_outputs.use_block_table or not self.pad_inputs or self.prompt_steps is None:
            try:
                super().compute_batch(model, batch_data)
            except Exception as error:
                self._error = error
                raise
            return
        with stream_context(self.inputs_and_outputs.compute_stream):
            if self.prompt_steps.has(batch_data["input_ids"].shape[1]):
                self.prompt_steps.run(batch_data, self.places)
                return
            began = time.monotonic()
            try:
                choose = functools.partial(ModelRunner._forward_process_and_sample, self, model)
                self.prompt_steps.record(batch_data, self.places, choose)
            except Exception as error:
                self.failed = error
                raise
            self.capture_s += time.monotonic() - began

    def run_one_warmup(self, model: Any, num_q_tokens: int, max_kv_read: int | None) -> float:
        """Run one step and wait for it; raises torch.OutOfMemoryError or RuntimeError if it fails.

        transformers prepares the next step in the very tensors that the GPU still reads: if those then hold longer
        requests, the kernels read past the end of their inputs.
        """
        with _silent():
            duration: float = super().run_one_warmup(model, num_q_tokens, max_kv_read)
        if isinstance(self._error, torch.OutOfMemoryError):
            raise self._error
        if self._error is not None:
            text = (str(self._error).strip() or "no reason given").splitlines()[0]
            raise RuntimeError(
                f"a step failed before the measurement ({type(self._error).__name__}: {text}). Set fuse: false, "
                "use_cuda_graph: false or attention: sdpa in benchmark_engine_options to find the cause"
            ) from self._error
        self._wait()
        return duration

    def _wait(self) -> None:
        if self.cache.device.type == "cuda":
            torch.cuda.synchronize()

    def _forward_process_and_sample(self, model: Any, batch_data: dict[str, Any], *rest: Any) -> None:
        began = time.monotonic()
        # Never stored in batch_data: a graph's own step must be worked out while it is captured.
        step = flash.make_step(batch_data, self.places, self.kernels)
        with _not_waiting() if self._strict else nullcontext():
            super()._forward_process_and_sample(model, {**batch_data, "step": step}, *rest)
        if self.cache.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            self.capture_s += time.monotonic() - began


@contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers from warning of a failed step: its error is raised here, or is in the result."""
    logger = logging.getLogger(TRANSFORMERS_LOGGER)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _not_waiting() -> Iterator[None]:
    """Make torch fail on operations that wait for the GPU, and transformers skip what it skips in a graph."""
    before, capturing = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it does not detect all of them
        torch.cuda.set_sync_debug_mode("error")
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = capturing
        torch.cuda.set_sync_debug_mode(before)


def prepare(manager: Any, kernels: flash.Kernels, max_blocks: int | None, graph_tokens: int = 0) -> None:
    """Make the manager's cache, and use this runner for its steps; call it before `warmup`.

    Steps with prompts of up to `graph_tokens` are recorded as CUDA graphs.
    """
    config = manager.continuous_batching_config
    # transformers has set it to 0: it only knows the flash-attn packages' kernels of that kind.
    config.max_blocks_per_request = MOST_PAGES if max_blocks is None else max_blocks
    processor = manager.batch_processor = manager._create_batch_processor()
    cache = processor.cache
    runner = processor.model_runner
    runner.__class__ = StepRunner
    runner.kernels, runner.places = kernels, layout.Places(cache)
    # Longer ones could not be recorded either: there are not enough pages.
    runner.graph_tokens = min(graph_tokens, cache.max_batch_tokens, cache.num_blocks * config.page_size)
    cache.extend_read_and_write_indices = runner.places.extend
