"""Split the time of continuous batching: the generation thread's work on the CPU, and the GPU's kernels."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Kinds of work by the names of the GPU's kernels; the first match counts.
KINDS = {
    "sampling": r"argmax|softmax|multinomial|cumsum",
    "attention": r"flash|fmha|attention|^_answer|^_join|^_read",
    "multiplying": r"^multiply|fused.*_mm_|gemm|gemv|nvjet|cutlass|splitk|cublas|matmul",
    "cache": r"^write_rows|index_copy|index_select|indexselect|index_put|index_elementwise|gather",
    "copies": r"memcpy|memset",
}
OTHER = "small operations"


def kind(kernel: str) -> str:
    """Return the kind of work of a kernel with this name."""
    name = kernel.lower()
    return next((one for one, pattern in KINDS.items() if re.search(pattern, name)), OTHER)


@dataclass
class Split:
    """Seconds of a run."""

    wall_s: float = 0.0
    steps: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the generation thread by activity; waiting for the GPU is part of `updating`."""
    gpu_s: dict[str, float] = field(default_factory=dict)
    """GPU seconds by kind of kernel."""
    busy_s: float = 0.0
    """Seconds in which the GPU computed anything."""
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The kernels that took longest in total: number of calls, seconds."""

    def sentence(self) -> str:
        """Return the times per step as a sentence."""
        per_step = {name: 1e3 * value / max(1, self.steps) for name, value in {**self.cpu_s, **self.gpu_s}.items()}
        cpu = ", ".join(f"{name} {per_step[name]:.2f}" for name in self.cpu_s)
        gpu = ", ".join(f"{name} {per_step[name]:.2f}" for name in self.gpu_s)
        return f"{self.steps} steps of {1e3 * self.wall_s / max(1, self.steps):.1f} ms; ms a step on the CPU: {cpu}" + (
            f"; on the GPU: {gpu}; it was busy {self.busy_s / self.wall_s:.0%} of the time" if gpu else ""
        )


@contextmanager
def watch(engine: Any, gpu: bool) -> Iterator[Split]:
    """Measure a continuous engine inside the block. With `gpu`, use torch's profiler, which costs some time."""
    split = Split()
    processor, router, manager = engine._manager.batch_processor, engine._router, engine._manager
    places = (
        (processor, "prepare_next_batch", "scheduling"),
        (manager, "_generation_step", "starting"),
        (processor, "update_batch", "updating"),
        (router, "deliver_batch", "adapter"),
    )
    for place, method, name in places:
        setattr(place, method, _timed(getattr(place, method), name, split))
    began = time.perf_counter()
    try:
        if gpu:
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CUDA]) as trace:
                yield split
                split.wall_s = time.perf_counter() - began
            _read(trace, split)
        else:
            yield split
            split.wall_s = time.perf_counter() - began
    finally:
        for place, method, _ in places:
            vars(place).pop(method)
        if "adapter" in split.cpu_s:
            split.cpu_s["updating"] -= split.cpu_s["adapter"]  # which it calls


def _timed(function: Any, name: str, split: Split) -> Any:
    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            split.cpu_s[name] = split.cpu_s.get(name, 0.0) + time.perf_counter() - began
            split.steps += name == "starting"

    return timed


def _read(trace: Any, split: Split) -> None:
    found: dict[str, tuple[int, float]] = {}
    spans = []
    for event in trace.profiler.kineto_results.events():
        if str(event.device_type()).endswith("CUDA"):
            name, taken = event.name()[:300], event.duration_ns() / 1e9
            split.gpu_s[kind(name)] = split.gpu_s.get(kind(name), 0.0) + taken
            count, before = found.get(name, (0, 0.0))
            found[name] = count + 1, before + taken
            spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
    end = 0
    for first, last in sorted(spans):
        split.busy_s += max(0, last - max(first, end)) / 1e9
        end = max(end, last)
    longest = sorted(found.items(), key=lambda item: -item[1][1])[:40]
    split.kernels = dict(longest)
