"""The details of the engine `continuous` in a result: every choice that was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from benchmark.continuous_options import Options
from benchmark.node.continuous.memory_plan import Plan
from benchmark.profiles import Generation

if TYPE_CHECKING:
    from benchmark.node.continuous.fused import Fused


def describe(
    manager: Any,
    options: Options,
    generation: Generation,
    ends: Sequence[int] | None,
    kernels: str | None,
    fused: Fused | None,
    plan: Plan | None,
) -> dict[str, JsonValue]:
    """Return the details. `ends`: tokens that end an answer, None if all have a fixed length; `kernels`: by name."""
    import torch

    cache, resolved = manager.batch_processor.cache, manager.continuous_batching_config
    runner = manager.batch_processor.model_runner
    steps, failed = getattr(runner, "prompt_steps", None), getattr(runner, "failed", None)
    recorded: list[int] | str = list(steps.sizes) if steps else []
    if failed is not None:
        recorded = f"not recorded: {type(failed).__name__}: {' '.join(str(failed).split())}"[:300]
    graphs = resolved.cuda_graph_booleans
    return {
        "attention": manager.model.config._attn_implementation,
        "attention_kernels": kernels,
        "block_sharing": bool(cache.use_prefix_sharing),
        "page_size": options.page_size,
        "num_blocks": resolved.num_blocks,
        "kv_cache_tokens": resolved.num_blocks * options.page_size,
        "max_batch_tokens": resolved.max_batch_tokens,
        "max_requests_per_batch": resolved.max_requests_per_batch,
        "max_blocks_per_request": resolved.max_blocks_per_request,
        "max_memory_percent": resolved.max_memory_percent,
        "cuda_graphs": {"varlen": graphs[0], "decode": graphs[1], "prompts": recorded},
        "async_batching": bool(resolved.use_async_batching),
        "fused": list(fused.names) if fused else [],
        "layer_kernels": fused.kernels if fused else None,
        "scheduler": resolved.scheduler_type,
        "safety_margin": manager.batch_processor.scheduler.safety_margin,
        "ends": "at max_new_tokens" if ends is None else [int(token) for token in ends],
        "seed": generation.seed,
        "sampling": "each query by its own seed" if generation.temperature > 0 else None,
        # Prepared before the measuring window: the cache, and CUDA graphs if they are on.
        "warmed_up": bool(manager.warmed_up),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "torch_threads": torch.get_num_threads(),
        "memory": None if plan is None else dataclasses.asdict(plan),
        "options": options.model_dump(mode="json", exclude_none=True),
    }
