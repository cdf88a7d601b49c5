"""Plan the use of a GPU's memory before anything is loaded: it must not run out in the middle of a run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.errors import SetupError
from benchmark.node.model.architecture import Sizes

GIB = 2**30
# The share of what the weights leave; the rest is for libraries' workspaces, CUDA graphs and fragmentation.
SHARE = 0.9
LEAST_RESERVE = GIB
# Choices for the tokens of one step. Profiles with latency limits ask for fewer than the most.
STEP_TOKENS = (8192, 4096, 2048, 1024, 512)
# The share of the usable memory that steps may take before fewer tokens are chosen.
STEP_SHARE = 0.1
MOST_REQUESTS = 512


@dataclass(frozen=True)
class Plan:
    """Bytes on the GPU, by use."""

    free: int
    weights: int
    steps: int
    """For the largest step: its intermediate results and logits."""
    bytes_per_token: int
    """For the KV cache, including what reading it back takes."""
    cache_tokens: int
    batch_tokens: int
    requests: int

    def sentence(self) -> str:
        """Return the plan in words."""
        return (
            f"GPU memory: {self.free / 1e9:.1f} GB available, {self.weights / 1e9:.1f} GB weights, "
            f"{self.steps / 1e9:.1f} GB steps of up to {self.batch_tokens} tokens, "
            f"{self.cache_tokens * self.bytes_per_token / 1e9:.1f} GB KV cache of {self.cache_tokens} tokens for up to "
            f"{self.requests} queries at once"
        )


def make_plan(
    sizes: Sizes,
    bytes_per_value: int,
    free: int,
    weights: int,
    needed_tokens: int,
    page_size: int,
    batch_tokens: int | None = None,
    requests: int | None = None,
    share: float | None = None,
    graph_tokens: int = 0,
) -> Plan:
    """Divide `free` bytes; options that are None are chosen. Steps of up to `graph_tokens` have their own graph memory.

    Raises SetupError, saying what is missing, if a cache of `needed_tokens` does not fit beside the weights.
    """
    left = free - weights
    usable = left - max(LEAST_RESERVE, round(left * (1 - SHARE))) if share is None else round(left * share)
    if batch_tokens is None:
        most = usable * STEP_SHARE
        fits = (tokens for tokens in STEP_TOKENS if _step_bytes(sizes, bytes_per_value, tokens, 1) <= most)
        batch_tokens = next(fits, STEP_TOKENS[-1])
    per_token = cache_bytes(sizes, bytes_per_value) + _read_back_bytes(sizes, bytes_per_value)
    # A query takes at least one page, and the largest number is a power of two, as are the sizes of CUDA graphs.
    pages = (usable - _step_bytes(sizes, bytes_per_value, batch_tokens, 1)) // (per_token * page_size)
    if requests is None:
        requests = min(MOST_REQUESTS, 2 ** max(0, pages.bit_length() - 1)) if pages > 0 else 1
    steps = sum(
        _step_bytes(sizes, bytes_per_value, tokens, min(requests, tokens))
        for tokens in (batch_tokens, min(graph_tokens, batch_tokens))
    )
    pages = max(0, (usable - steps) // (per_token * page_size))
    plan = Plan(free, weights, steps, per_token, pages * page_size, batch_tokens, requests)
    if plan.cache_tokens < needed_tokens:
        short = needed_tokens * per_token + steps - usable
        raise SetupError(
            f"The model does not fit: {plan.sentence()}; at least {needed_tokens} tokens are needed, which takes "
            f"{short / 1e9:.1f} GB more: end whatever else uses the GPU (nvidia-smi), use a smaller model, or lower "
            "num_blocks, max_batch_tokens or max_new_tokens."
        )
    return plan


def cache_bytes(sizes: Sizes, bytes_per_value: int) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    return 2 * sizes.layers * sizes.kv_values * bytes_per_value


def free_bytes(device: int = 0) -> int:
    """Return how much memory this process can still take on a GPU, within any limit that is set for it."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)(device)
    allowed = int(total * share) - int(torch.cuda.memory_reserved(device))
    return min(int(free), allowed)


def _step_bytes(sizes: Sizes, bytes_per_value: int, tokens: int, requests: int) -> int:
    """Return the bytes of a step. Per token: its states about ten times, and the MLP's intermediate values three times.

    Per request: its logits as computed, as float32, and once more while a token is chosen.
    """
    per_token = (10 * sizes.hidden + 3 * sizes.widest) * bytes_per_value
    return tokens * per_token + requests * sizes.vocabulary * (bytes_per_value + 8)


def _read_back_bytes(sizes: Sizes, bytes_per_value: int) -> int:
    """Return what transformers stores per token of the cache: one layer's copy, and its index twice."""
    return 2 * sizes.kv_values * bytes_per_value + 16
