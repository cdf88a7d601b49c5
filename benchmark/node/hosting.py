"""Make an engine by its name: in this process or, for several replicas, hosted in processes of their own."""

from __future__ import annotations

from typing import Any

from benchmark.errors import InputError, SetupError
from benchmark.node.interfaces import Engine
from benchmark.node.registry import plain_engine
from benchmark.node.replicas import Replicated
from benchmark.node.spread import Spread
from benchmark.node.watch.present_gpus import left_out, visible
from benchmark.profiles import Generation
from benchmark.settings import Settings


def make_engine(
    name: str, settings: Settings, generation: Generation, options: dict[str, Any], apart: bool = False
) -> Engine:
    """Return the engine of that file name in this process, or one that hosts several replicas if several are needed.

    `apart`: host a single one too, so that other work in this process does not slow the engine down.

    Raises InputError if several are requested of an engine that cannot be hosted, SetupError if there are too few GPUs.
    """
    single = plain_engine(name, settings, generation, options)
    asked = settings.benchmark_replicas
    if (parts := single.parts()) > 1:
        gpus = _visible_gpus() if settings.benchmark_device == "cuda" else None
        if gpus is not None and parts > len(gpus):
            raise SetupError(f"tensor_parallel is {parts}, but {len(gpus)} GPUs are visible: each part needs its own.")
        return Spread(name, settings, generation, options, parts, gpus)
    if not single.replicable:
        if asked not in ("auto", 1) and not single.counts_gpus:
            raise InputError(f"benchmark_replicas is {asked}: the engine {name} runs once per node.")
        return single
    gpus = _visible_gpus() if settings.benchmark_device == "cuda" else None
    if gpus is not None and not gpus:
        raise SetupError(" ".join(["No GPU is visible to this process.", left_out() or "Try nvidia-smi."]))
    count = (len(gpus) if gpus else 1) if asked == "auto" else asked
    if gpus is not None and count > len(gpus):
        reported = f"benchmark_replicas is {count}, but {len(gpus)} GPUs are visible: each replica needs its own."
        raise SetupError(" ".join(filter(None, [reported, left_out()])))
    return single if count == 1 and not apart else Replicated(name, settings, generation, options, count, gpus)


def _visible_gpus() -> list[str]:
    """Return the CUDA_VISIBLE_DEVICES value for each GPU that this process may use; empty if there is none."""
    found = visible()
    if found is not None:
        return list(found.entries)
    import torch

    # Without a GPU there is one replica, whose own error says best why it cannot load.
    return [str(number) for number in range(max(1, torch.cuda.device_count()))]
