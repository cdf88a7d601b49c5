"""Our kernels for the small operations of a Llama-like layer, in half precision on an NVIDIA GPU.

torch launches one kernel for each addition and product, and each reads and writes the whole batch: rotating queries and
keys takes ten kernels. Here it takes one. And a single query has one token per step: multiplying is then limited by
reading the weights, which a special kernel does faster than a matrix library.

They are compiled on the node (`nvrtc`), and used where they compute the same as the model's own code (`fused`).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from benchmark.errors import SetupError
from benchmark.node.continuous import nvrtc
from benchmark.node.continuous.cuda_module import CudaModule
from benchmark.node.watch.full_memory import is_full

SOURCE = Path(__file__).with_suffix(".cu")
ACTIVATIONS = ("silu", "gelu by tanh")
# For the kernels for one token: rows of the weights per block, and threads per block. Measured on an H200: within 6 %
# of the fastest for each size in Llama-3.1-8B.
ROWS, THREADS = 4, 256
# For the others. A thread reads eight values at once, 16 bytes.
BLOCK, TOGETHER = 256, 8
MOST_THREADS = 1024


@functools.cache
def load(dtype: str) -> LayerKernels:
    """Return the kernels for the GPU in use. Raises ImportError or RuntimeError with the reason if there are none."""
    if dtype not in ("bfloat16", "float16"):
        raise RuntimeError(f"there are no kernels for {dtype}")
    defines = {"BFLOAT16": int(dtype == "bfloat16"), "ROWS": ROWS, "THREADS": THREADS}
    return LayerKernels(nvrtc.load(SOURCE.read_text(), defines), getattr(torch, dtype))


@functools.cache
def missing(dtype: str) -> str | None:
    """Return why they do not run on this machine, as the end of a sentence; None: they run.

    Raises SetupError if memory is too full to load them: that is no reason to measure with other kernels.
    """
    try:
        load(dtype)
    except Exception as error:  # no bindings, an old driver, a GPU of another vendor
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        if is_full(reason):
            raise SetupError(f"The layer kernels cannot be loaded: {reason}") from error
        return reason
    return None


class LayerKernels:
    """The kernels' functions. Each returns a new tensor; sizes are in values and must be multiples of 8.

    All memory is read as values of `dtype`, without a check: some families keep parts of a model in float32.
    """

    def __init__(self, module: CudaModule, dtype: torch.dtype) -> None:
        self._launch, self._dtype = module.launch, dtype

    def turns(self, q: Any, k: Any, cos: Any, sin: Any) -> bool:
        """Return whether `rotary` supports these: some families rotate a part of each head, or with float32 angles."""
        return bool(
            q.dim() == k.dim() == 4
            and q.shape[0] == 1
            and self._knows(q, k, cos, sin)
            and cos.shape == sin.shape == (1, *q.shape[2:])
            and q.shape[2:] == k.shape[2:]
            and not q.shape[-1] % (2 * TOGETHER)  # a thread rotates eight values of one half with eight of the other
            and (cos.is_contiguous() and sin.is_contiguous())
            and (_reads(q) and _reads(k))
        )

    def rotary(self, q: Any, k: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        """Do transformers' `apply_rotary_pos_emb`: q and k (1, heads, tokens, size), cos and sin (1, tokens, size)."""
        _require(self.turns(q, k, cos, sin))
        (q_heads, tokens, size), k_heads = q.shape[1:], k.shape[1]
        answers = [
            torch.empty((1, tokens, heads, size), dtype=q.dtype, device=q.device) for heads in (q_heads, k_heads)
        ]
        strides = q.stride(2), q.stride(1), k.stride(2), k.stride(1)
        blocks = _blocks(tokens * (q_heads + k_heads) * size // 2)
        self._launch("rotary", blocks, BLOCK, q, k, cos, sin, *answers, tokens, q_heads, k_heads, size, *strides)
        return answers[0].transpose(1, 2), answers[1].transpose(1, 2)

    def norm(self, states: Any, weight: Any, epsilon: float, offset: float, early: bool) -> Any:
        """RMSNorm of the last dimension; offset: added to the weight; early: the factor is rounded first."""
        size, inner = states.shape[-1], states.shape[-2] if states.dim() > 3 else 1
        _require(size % TOGETHER == 0 and self._knows(states, weight) and weight.numel() == size)
        if not (states.is_contiguous() or (inner > 1 and states.shape[0] == 1 and states.stride(-2) == size)):
            states = states.contiguous()
        stride = states.stride(-3) if inner > 1 else size
        out = torch.empty(states.shape, dtype=states.dtype, device=states.device)
        threads = min(MOST_THREADS, -(-size // TOGETHER // 32) * 32)
        rows = states.numel() // size
        self._launch(
            "rms_norm", rows, threads, states, weight, out, size, inner, stride, epsilon, float(offset), int(early)
        )
        return out

    def gated(self, both: Any, activation: int) -> Any:
        """activation(gate) * up, where both are (..., gate then up)."""
        size = both.shape[-1] // 2
        _require(size % TOGETHER == 0 and self._knows(both) and both.is_contiguous())
        out = torch.empty((*both.shape[:-1], size), dtype=both.dtype, device=both.device)
        tokens = out.numel() // size
        self._launch("gated", _blocks(out.numel()), BLOCK, both, out, tokens, size, activation)
        return out

    def multiply(self, states: Any, weight: Any, bias: Any) -> Any:
        """Do torch.nn.functional.linear; for one token with a kernel of our own."""
        rows, size = weight.shape
        if not self._alone(states, weight):
            return linear(states, weight, bias)
        out = torch.empty((*states.shape[:-1], rows), dtype=states.dtype, device=states.device)
        self._launch("multiply", -(-rows // ROWS), THREADS, weight, states, bias, out, rows, size)
        return out

    def multiply_gated(self, states: Any, weight: Any, bias: Any, activation: int) -> Any:
        """Return activation(gate) * up of a product with gate's weight, then up's."""
        if not self._alone(states, weight):
            return self.gated(linear(states, weight, bias), activation)
        rows, size = weight.shape[0] // 2, weight.shape[1]
        out = torch.empty((*states.shape[:-1], rows), dtype=states.dtype, device=states.device)
        blocks = -(-rows // (ROWS // 2))
        self._launch("multiply_gated", blocks, THREADS, weight, states, bias, out, rows, size, activation)
        return out

    def write(self, key: Any, value: Any, rows: Any, pages_k: Any, pages_v: Any) -> None:
        """Write keys and values (tokens, heads, size) to the given rows (tokens,) int64 of the pages."""
        tokens, heads, size = key.shape
        width = heads * size
        _require(width % TOGETHER == 0 and self._knows(key, value, pages_k))
        # In some models they are strided, as parts of each head's query, key and value.
        key, value = (one if _reads(one) and one.stride(1) == size else one.contiguous() for one in (key, value))
        strides = key.stride(0), value.stride(0), pages_k.stride(1)
        self._launch(
            "write_rows", _blocks(tokens * width), BLOCK, key, value, rows, pages_k, pages_v, tokens, width, *strides
        )

    def _alone(self, states: Any, weight: Any) -> bool:
        size = states.shape[-1]
        return bool(states.numel() == size and size % TOGETHER == 0 and self._knows(states, weight))

    def _knows(self, *tensors: Any) -> bool:
        return all(one.dtype == self._dtype for one in tensors)


def _reads(tensor: Any) -> bool:
    """Return whether a thread can read eight values at once at the beginning of every row."""
    begins = tensor.data_ptr() // tensor.element_size(), *tensor.stride()[:-1]
    return tensor.stride(-1) == 1 and not any(begin % TOGETHER for begin in begins)


def _blocks(values: int) -> int:
    return -(-values // (TOGETHER * BLOCK))


def _require(met: bool) -> None:
    if not met:
        raise ValueError("These kernels do not support tensors of this shape or layout.")
