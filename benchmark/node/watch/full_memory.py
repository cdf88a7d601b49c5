"""Full memory, on a GPU or the node: torch's and Python's messages, converted to remedies."""

from __future__ import annotations

import re

from benchmark.provisioned import ENGINES
from benchmark.settings import Settings

# torch.OutOfMemoryError's message: the first sentences, without the advice on its own allocator that follows. And the
# driver's, through torch or Triton, when another process has taken the rest meanwhile.
_GPU = re.compile(
    r"(?:CUDA|HIP) out of memory\..*?(?= Process \d| Of the allocated memory|$)|"
    r"(?:CUDA error|HIP error|Triton Error \[\w+\]): out of memory",
    re.DOTALL,
)
# Python, torch's allocator for the CPU, C++, and the system itself.
_NODE = re.compile(
    r"MemoryError\b[^\n]*|DefaultCPUAllocator: [^\n]*?tried to allocate \d+ bytes|std::bad_alloc|"
    r"Cannot allocate memory[^\n]*"
)
# A server takes a share of the memory for its weights and its KV cache, and fills it.
_SERVER = (
    "Lower gpu_memory_utilization, max_model_len or max_num_seqs, or raise tensor_parallel_size, in "
    "benchmark_engine_options."
)


def explain(text: str, settings: Settings, engine: str) -> str:
    """Return the text of a failure; if it is about full memory, with our remedies instead of torch's advice."""
    if found := _GPU.search(text):
        return f"The GPU's memory is full ({_said(found)}). {' '.join(_gpu_remedies(settings, engine))}"
    if found := _NODE.search(text):
        return f"The node's memory is full ({_said(found)}). {' '.join(_node_remedies(settings, engine))}"
    return text


def is_full(text: str) -> bool:
    """Return whether the text of a failure is about full memory, a GPU's or the node's."""
    return bool(_GPU.search(text) or _NODE.search(text))


def _said(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).rstrip(".: ")


def _gpu_remedies(settings: Settings, engine: str) -> list[str]:
    remedies = ["End whatever else uses the GPU (nvidia-smi shows it)."]
    if settings.benchmark_dtype == "float32":
        remedies.append("benchmark_dtype: float16 needs half as much.")
    if engine == "continuous":
        remedies.append("A smaller KV cache fits: lower max_memory_percent or max_batch_tokens in engine_options.")
    elif engine in ENGINES:
        remedies.append(_SERVER)
    else:
        remedies.append("Shorter prompts or fewer max_new_tokens in a profile of your own need less KV cache.")
    remedies.append("A smaller benchmark_model, or one with quantized weights, needs less.")
    return remedies


def _node_remedies(settings: Settings, engine: str) -> list[str]:
    remedies = ["End whatever else takes memory there, or raise this user's limit (ulimit -v; systemd: MemoryMax)."]
    if engine in ENGINES:
        remedies.append(_SERVER)
    elif settings.benchmark_replicas != 1:
        remedies.append("Fewer benchmark_replicas need less: each loads its own copy of the model.")
    if settings.benchmark_device == "cpu" and settings.benchmark_dtype == "float32":
        remedies.append("benchmark_dtype: bfloat16 needs half as much.")
    remedies.append("A smaller benchmark_model needs less.")
    return remedies
