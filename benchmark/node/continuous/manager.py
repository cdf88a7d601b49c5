"""transformers' manager of continuous batching, set up from a profile's options and the memory plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from benchmark.continuous_options import Options
from benchmark.errors import SetupError
from benchmark.node.continuous import attention, logits_processors
from benchmark.node.continuous.memory_plan import Plan
from benchmark.profiles import Generation

# On a CPU transformers would take 60 % of the memory for the cache and plan steps of 8192 tokens.
CPU_CACHE_TOKENS = 32_768
CPU_BATCH_TOKENS = 512
# Options of our own, or with another name in transformers.
NOT_TRANSFORMERS = {
    "attention",
    "fuse",
    "graph_tokens",
    "require_cuda_graph",
    "scheduler",
}
# The remedy for transformers' error about a number of pages below one.
TOO_LARGE = " Not enough memory: lower max_batch_tokens or num_blocks, or end whatever else uses it."


def make_manager(
    model: Any, config: Any, options: Options, chosen_attention: str, plan: Plan | None, seed: int
) -> tuple[Any, str]:
    """Return the manager, and the name of the model's attention.

    `config` is transformers' GenerationConfig. Without a plan transformers sizes the cache itself.
    """
    from transformers import ContinuousBatchingConfig

    own = chosen_attention == attention.PAGED_FLASH
    asked = {
        **options.model_dump(exclude=NOT_TRANSFORMERS),
        "scheduler_type": options.scheduler,
        "allow_block_sharing": False,
        "auto_switch_to_flash": False,
        "seed": seed,
    }
    if model.device.type == "cpu":
        asked["num_blocks"] = options.num_blocks or max(2, CPU_CACHE_TOKENS // options.page_size)
        asked["max_batch_tokens"] = options.max_batch_tokens or CPU_BATCH_TOKENS
    elif "flash" in chosen_attention:
        # Graphs for steps in which all requests answer: `warmup` captures those. For steps of mixed lengths a graph
        # would be captured for each new size, during the measuring window.
        if options.use_cuda_graph is not False:
            asked["use_cuda_graph"] = (bool(options.use_cuda_graph) and not own, True)
        if options.use_async_batching is None:
            asked["use_async_batching"] = True
    if "flash" in chosen_attention and plan is not None:
        # With a mask over all tokens of the cache, only transformers knows how much memory that needs.
        asked["num_blocks"] = options.num_blocks or plan.cache_tokens // options.page_size
        asked["max_batch_tokens"], asked["max_requests_per_batch"] = plan.batch_tokens, plan.requests
        asked["max_memory_percent"] = 1.0  # the plan leaves room, and knows limits that transformers does not
    known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    older = "auto_switch_to_flash" not in known
    if older:  # transformers 5.17: another name for pages, and only a paged attention's name is left unchanged
        asked["block_size"] = asked.pop("page_size")
    used = f"paged|{chosen_attention.removeprefix('paged|')}" if older else chosen_attention
    attention.use(model, used)
    batching = ContinuousBatchingConfig(**{key: value for key, value in asked.items() if key in known})
    return model.init_continuous_batching(config, batching), used


def insert_processors(
    manager: Any, generation: Generation, ends: Sequence[int], lengths: bool = False
) -> frozenset[str]:
    """Set up how tokens are chosen, as in the profile; return the per-query arguments of `add_request`.

    `lengths`: whether queries set the length of their answers. Call it before the manager's cache is made.
    """
    processors: list[Any] = []
    if generation.min_new_tokens or lengths:
        processors.append(logits_processors.MinNewTokens(generation.min_new_tokens, ends))
    for processor in reversed(processors):
        logits_processors.insert(manager, processor)
    if generation.temperature > 0:
        # After the processors for temperature and the like.
        processors.append(logits_processors.Drawn())
        logits_processors.insert(manager, processors[-1], last=True)
        manager.generation_config.do_sample = False  # the highest score with noise is already a random draw
    return frozenset(word for processor in processors for word in processor.supported_kwargs)


def warm_up(manager: Any, positions: int | None) -> None:
    """Run a step of every kind, which captures CUDA graphs where these are on.

    The longest is one request with as many tokens as a step may have, possibly more than the model's `positions` (None:
    no limit). Position ids are clamped to these: reading past the end of a table of learned positions makes the GPU
    unusable for this process.
    """
    if manager.batch_processor is None:
        manager.batch_processor = manager._create_batch_processor()
    io = manager.batch_processor.inputs_and_outputs
    prepare, last = io.prepare_batch_tensors, None if positions is None else positions - 1

    def within(*given: Any, **named: Any) -> None:
        prepare(*given, **named)
        prepared = io.io_pairs[io.current_pair].host_io if hasattr(io, "io_pairs") else io
        prepared.position_ids.clamp_(min=0, max=last)

    io.prepare_batch_tensors = within
    try:
        manager.warmup()
    finally:
        io.prepare_batch_tensors = prepare


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn errors that stop the manager, or a step before any query, into a SetupError with a remedy."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        remedy = (
            " Not enough memory: lower max_batch_tokens, num_blocks or max_memory_percent, or end whatever else uses "
            "it."
        )
        raise SetupError(f"Continuous batching cannot start: {_line(error)}.{remedy}") from error
    except (ValueError, ImportError, RuntimeError) as error:
        remedy = TOO_LARGE if "num_sectors" in str(error) else ""
        raise SetupError(f"Continuous batching cannot start: {_line(error)}.{remedy}") from error


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
