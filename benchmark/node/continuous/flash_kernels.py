"""The kernels of `torch_flash`: those that this machine can run, tried against exact attention before they are used."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from benchmark.errors import SetupError
from benchmark.node.continuous import exact_attention
from benchmark.node.continuous.flash import Answering, Kernels
from benchmark.node.watch.full_memory import is_full

# The largest difference from the exact answer, of values around 1, that half precision explains.
TRIAL_TOLERANCE = 0.02
PAGE_SIZE = 256

Write = Callable[..., None]
"""(key, value, rows, pages_k, pages_v), see `flash.Kernels`."""


@functools.cache
def choose(device: str, dtype: str, head_size: int = 64, wanted: str = "auto") -> Kernels:
    """Return the fastest kernels that run here and are right; `wanted` "torch": of those that need no compiler.

    Raises RuntimeError with the reasons, as the end of a sentence, where there are none, and SetupError where memory is
    too full to try: that says nothing of the kernels, and others would be measured than on a node that had room.
    """
    reasons = []
    write = _write(dtype)
    for make in (torch_kernels,) if wanted == "torch" else (triton_kernels, torch_kernels):
        try:
            kernels = make(write)
            worst = trial(kernels, device, dtype, head_size)
        except Exception as error:  # whatever this GPU, its driver, a missing compiler or an older torch says
            text = str(error).strip() or type(error).__name__
            if is_full(f"{type(error).__name__}: {text}"):
                raise SetupError(f"The kernels for attention cannot be tried: {text}") from error
            reasons.append(f"{make.__name__} do not run here ({type(error).__name__}: {text.splitlines()[0]})")
            continue
        if worst < TRIAL_TOLERANCE:
            return kernels
        reasons.append(f"{make.__name__} are wrong by {worst:.3f} here")
    raise RuntimeError("; ".join(reasons).replace("_", " "))


def _write(dtype: str) -> Write:
    from benchmark.node.continuous import layer_kernels

    return torchs_write if layer_kernels.missing(dtype) else layer_kernels.load(dtype).write


def triton_kernels(write: Write) -> Kernels:
    """Return our own kernel for answering, beside torch's for reading prompts.

    It is compiled on the node: Triton needs a C compiler and Python's headers there.
    """
    from benchmark.node.continuous import paged_kernel

    return Kernels("triton", torch_kernels(write).read, paged_kernel.answer, write, paged_kernel.BLOCK)


def torch_kernels(write: Write) -> Kernels:
    """Return torch's own kernel alone. It can answer only a request that lies in one page."""
    import torch

    # Not torch.nn.attention.varlen: around this very kernel, it costs the CPU several times as much.
    kernel = torch.ops.aten._flash_attention_forward

    def read(query: Any, key: Any, value: Any, starts_q: Any, starts_k: Any, *more: Any) -> Any:
        max_q, max_k, scale = more
        return kernel(query, key, value, starts_q, starts_k, max_q, max_k, 0.0, True, False, scale=scale)[0]

    def answer(query: Any, pages_k: Any, pages_v: Any, now: Answering, scale: float | None) -> Any:
        rows_k, rows_v = pages_k.flatten(0, 1), pages_v.flatten(0, 1)
        longest = now.tables.shape[1] * pages_k.shape[1]
        # Not causal: one token at the end may see everything, and only so the heads of a group are computed together.
        sizes = now.starts_q, now.starts_k, 1, longest, 0.0, False, False
        return kernel(query, rows_k, rows_v, *sizes, scale=scale, seqused_k=now.lengths)[0]

    return Kernels("torch", read, answer, write, any_pages=False)


def torchs_write(key: Any, value: Any, rows: Any, pages_k: Any, pages_v: Any) -> None:
    """Write new keys and values to the pages by torch's own kernels."""
    pages_k.flatten(0, 1).index_copy_(0, rows, key)
    pages_v.flatten(0, 1).index_copy_(0, rows, value)


def trial(kernels: Kernels, device: str, dtype: str, head_size: int) -> float:
    """Return the largest difference between the kernels and exact attention, for short requests on few pages."""
    import torch

    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, head_size, generator=generator, device=device).to(getattr(torch, dtype))

    def whole(*numbers: int) -> Any:
        return torch.tensor(numbers, dtype=torch.int32, device=device)

    reading = draw(4, 4), draw(9, 2), draw(9, 2), whole(0, 1, 4), whole(0, 5, 9), 3, 5, None
    pages_k, pages_v = draw(6, PAGE_SIZE, 2), draw(6, PAGE_SIZE, 2)
    written = pages_k.clone(), pages_v.clone()
    key, value, rows = draw(3, 2), draw(3, 2), torch.tensor([5, 2 * PAGE_SIZE, 6 * PAGE_SIZE - 1], device=device)
    kernels.write(key, value, rows, pages_k, pages_v)
    for pages, new in zip(written, (key, value), strict=True):
        pages.flatten(0, 1)[rows] = new
    # Four requests and a place without one.
    tables = torch.stack([whole(3, 1), whole(0, 4), whole(2, 5), whole(5, 0), whole(0, 0)])
    longest = 300 if kernels.any_pages else 200
    now = Answering(
        tables if kernels.any_pages else tables[:, :1].contiguous(),
        whole(longest, 1, PAGE_SIZE, 70, 0),
        whole(*range(6)),
        torch.nn.functional.pad(tables[:, 0] * PAGE_SIZE, (0, 1)),
        whole(5),
    )
    answering = draw(5, 4), *written, now, None
    pairs = [
        (kernels.read(*reading), exact_attention.read(*reading)),
        (kernels.answer(*answering), exact_attention.answer(*answering)),
        (pages_k, written[0]),
        (pages_v, written[1]),
    ]
    if kernels.any_pages:  # of five requests three are there, and their answers go where others lie
        few, rest = dataclasses.replace(now, count=whole(3)), draw(6, 4)
        given = (*answering[:3], few, None)
        pairs.append((kernels.answer(*given, out=rest.clone()), exact_attention.answer(*given, out=rest.clone())))
    # NaN is larger than anything that is tolerated.
    return max(float((one.float() - exact.float()).abs().max().nan_to_num(torch.inf)) for one, exact in pairs)
