"""A GPU whose memory is full: what torch says of it, turned into what would fit."""

from __future__ import annotations

import re

from benchmark.settings import Settings

# What torch.OutOfMemoryError says; the first sentences, without the advice on its own allocator that follows.
_FULL = re.compile(r"(?:CUDA|HIP) out of memory\..*?(?= Process \d| Of the allocated memory|$)", re.DOTALL)


def explain(text: str, settings: Settings, engine: str) -> str:
    """Return the text of a failure; where it tells of a GPU's full memory, what would fit instead of torch's advice."""
    found = _FULL.search(text)
    if found is None:
        return text
    said = " ".join(found[0].split()).rstrip(".")
    return f"The GPU's memory is full ({said}). {' '.join(_remedies(settings, engine))}"


def _remedies(settings: Settings, engine: str) -> list[str]:
    remedies = ["End what else uses the GPU (nvidia-smi shows it)."]
    if settings.benchmark_dtype == "float32":
        remedies.append("benchmark_dtype: float16 takes half of it.")
    if engine == "continuous":
        remedies.append("A smaller KV cache fits: lower max_memory_percent or max_batch_tokens in engine_options.")
    else:
        remedies.append("Shorter prompts or fewer max_new_tokens in a profile of your own need less KV cache.")
    remedies.append("A smaller benchmark_model, or one with quantized weights, needs less of all.")
    return remedies
