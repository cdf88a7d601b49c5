"""The kernels of `paged_flash`, tested against exact attention before they are used."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from benchmark.errors import SetupError
from benchmark.node.continuous import exact_attention, layout
from benchmark.node.continuous.flash import Kernels
from benchmark.node.watch.full_memory import is_full

# The largest difference from the exact answer, for values around 1, that half precision explains.
TRIAL_TOLERANCE = 0.02
# The page size must be a multiple of this: the number of tokens that kernels read at once.
PAGE_MULTIPLE = 64
# On older GPUs Triton does not use the matrix units.
OLDEST = (8, 0)


class Heads(NamedTuple):
    """The properties of a model's attention that the kernels depend on."""

    size: int
    """Values per head."""
    group: int
    """Query heads per key-value head."""
    kv: int
    """Key-value heads."""


@functools.cache
def choose(device: str, dtype: str, heads: Heads) -> Kernels:
    """Return the kernels, if they run here and are correct for a model with such heads.

    Raises RuntimeError with the reason, as the end of a sentence, if there are none, and SetupError if memory is too
    full to test them: another attention would then be measured than on a node with enough memory.
    """
    try:
        _require_matrix_units(device)
        kernels = triton_kernels(dtype)
        worst = trial(kernels, device, dtype, heads)
    except Exception as error:  # whatever this GPU, its driver or an older Triton says
        text = str(error).strip() or type(error).__name__
        if is_full(f"{type(error).__name__}: {text}"):
            raise SetupError(f"The attention kernels cannot be tested: {text}") from error
        raise RuntimeError(f"its kernels do not run here ({type(error).__name__}: {text.splitlines()[0]})") from error
    if not worst < TRIAL_TOLERANCE:
        raise RuntimeError(f"its kernels' results are off by {worst:.3f} here")
    return kernels


def _require_matrix_units(device: str) -> None:
    import torch

    if device == "cuda" and torch.version.cuda is not None and torch.cuda.get_device_capability() < OLDEST:
        raise RuntimeError(f"Triton does not use the matrix units of a GPU before sm_{OLDEST[0]}{OLDEST[1]}")


def triton_kernels(dtype: str) -> Kernels:
    """Return our own kernels. Raises ImportError without Triton, which comes with torch for GPUs."""
    from benchmark.node.continuous import layer_kernels, paged_kernel, prompt_kernel

    write = torchs_write if layer_kernels.missing(dtype) else layer_kernels.load(dtype).write
    return Kernels("triton", paged_kernel.answer, prompt_kernel.read, write)


def torchs_write(key: Any, value: Any, rows: Any, pages_k: Any, pages_v: Any) -> None:
    """Write new keys and values to the pages with torch's own kernels."""
    pages_k.flatten(0, 1).index_copy_(0, rows, key)
    pages_v.flatten(0, 1).index_copy_(0, rows, value)


def trial(kernels: Kernels, device: str, dtype: str, heads: Heads) -> float:
    """Return the largest difference between the kernels and exact attention, for short requests on few pages.

    The difference is relative for answers beyond 1, where half precision rounds by more.
    """
    import torch

    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, heads.size, generator=generator, device=device).to(getattr(torch, dtype))

    def whole(*numbers: int) -> Any:
        return torch.tensor(numbers, dtype=torch.int32, device=device)

    size = 4 * PAGE_MULTIPLE
    # With the model's own sizes: then what Triton compiles here is used for the model too.
    pages_k, pages_v = draw(6, size, heads.kv), draw(6, size, heads.kv)
    written = pages_k.clone(), pages_v.clone()
    key, value, rows = draw(3, heads.kv), draw(3, heads.kv), torch.tensor([5, 2 * size, 6 * size - 1], device=device)
    kernels.write(key, value, rows, pages_k, pages_v)
    for pages, new in zip(written, (key, value), strict=True):
        pages.flatten(0, 1)[rows] = new
    # Two answering requests, and an empty place. Then three prompts, of which a page, 70 tokens and nothing are in the
    # cache. There is room for more, which must not be read, nor any other row written.
    tiles = (4, 99, 3, size), (3, 67, 32, 134), (3, 3, 64, 70), (5, 102, 5, 0), (0, 0, 64, 0)
    requests = layout.Requests(
        whole(3, 4, 0, 0),
        whole(size + 44, 1, 0, 166, size + 3, 5, size, size),
        whole(0, 2, 0, 3, 4, 6, 0, 0),
        torch.stack([whole(*tile) for tile in tiles]),
        whole(3, 1, 5, 4, 0, 2, 5),
    )
    query = draw(112, heads.kv * heads.group)
    given = query, *written, requests, None
    found, exact = torch.zeros_like(query), torch.zeros_like(query)
    for attend, out in (
        (kernels.answer, found),
        (kernels.read, found),
        (exact_attention.answer, exact),
        (exact_attention.read, exact),
    ):
        attend(*given, out)
    pairs = (found, exact), (pages_k, written[0]), (pages_v, written[1])
    # NaN is larger than any tolerance.
    apart = ((one.float() - exact.float()).abs() / (1 + exact.float().abs()) for one, exact in pairs)
    return max(float(one.nan_to_num(torch.inf).max()) for one in apart)
