"""Choose the attention of the continuous engine from what this machine has, without network access.

Besides transformers' own there is `paged_flash`: our kernels on the paged cache, where Triton compiles for the GPU. It
was measured to be fastest, so GPUs get it. sdpa and eager attend over the packed requests with one dense mask, which
costs as much as if every request could see all others.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from benchmark.continuous_options import Options
from benchmark.errors import SetupError, Unfit
from benchmark.node.continuous import flash, flash_kernels, paged_eager

# "flash" in the name makes transformers pack the requests without a mask; a digit would select the flash-attn package's
# own decoding kernel.
PAGED_FLASH = "paged_flash"
EAGER = paged_eager.NAME


def choose(options: Options, config: Any, device: str, dtype: str, needs: Collection[str] = ()) -> str:
    """Return the attention to use for a profile's options.

    Raises SetupError if the requested attention is not available, Unfit if CUDA graphs are required but impossible.
    """
    chosen: str = options.attention
    if chosen == "auto":
        chosen = automatic(config, device, dtype, needs)
    elif (reason := missing(chosen, config, device, dtype, needs)) is not None:
        raise SetupError(f"engine_options: attention {chosen} is not available: {reason}.")
    if chosen == PAGED_FLASH and options.page_size % flash_kernels.PAGE_MULTIPLE:
        raise SetupError(
            f"engine_options: {PAGED_FLASH} needs a page_size that is a multiple of {flash_kernels.PAGE_MULTIPLE}."
        )
    if options.require_cuda_graph and device != "cpu" and "flash" not in chosen:
        reason = missing(PAGED_FLASH, config, device, dtype, needs)
        raise Unfit(f"No attention for continuous batching allows CUDA graphs here ({PAGED_FLASH}: {reason}).")
    return chosen


def automatic(config: Any, device: str, dtype: str, needs: Collection[str] = ()) -> str:
    """Return the fastest attention known. On a CPU that is eager: 1.7 times as fast as sdpa, which expands a mask.

    `config` is the language model's; `needs` is what its attention needs beyond the usual, as in `Look`.

    The flash-attn package, which benchmarks/engine.py has not measured yet, is used where `paged_flash` does not run.
    """
    if device == "cpu":
        return EAGER
    best_first = (PAGED_FLASH, "flash_attention_3", "flash_attention_2")
    return next(
        (name for name in best_first if missing(name, config, device, dtype, needs) is None),
        EAGER if needs else "sdpa",
    )


def missing(name: str, config: Any, device: str, dtype: str, needs: Collection[str] = ()) -> str | None:
    """Return why attention `name` does not work here for this model, as the end of a sentence; None: it works."""
    if needs and name in ("sdpa", PAGED_FLASH):
        return f"it does not support the model's {' and '.join(sorted(needs))}"
    if "flash" not in name:
        return None
    if device == "cpu":
        return "it needs a GPU"
    if dtype == "float32":
        return "it needs benchmark_dtype float16 or bfloat16"
    if name == PAGED_FLASH:
        return _paged_flash_missing(config, device, dtype)
    from transformers.utils import import_utils

    version = name[-1]
    # No fallback: it would download a kernel from the hub.
    available = getattr(import_utils, f"is_flash_attn_{version}_available", lambda: False)()
    return None if available else f"the package flash-attn (version {version}) is not installed"


def use(model: Any, name: str) -> None:
    """Set the model's attention."""
    if name == PAGED_FLASH:
        from transformers import AttentionInterface

        AttentionInterface.register(PAGED_FLASH, flash.forward)
        # Not set_attn_implementation: it looks for a package for every name with "flash" in it.
        model.config._attn_implementation = PAGED_FLASH
    else:
        if name == EAGER:
            paged_eager.register()
        model.set_attn_implementation(name)


def plain(needs: Collection[str]) -> str:
    """Return the model's own attention without pages, which counts as correct."""
    return "eager" if needs else "sdpa"


def _paged_flash_missing(config: Any, device: str, dtype: str) -> str | None:
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    if getattr(config, "sliding_window", None) or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return "the model has layers other than full attention"
    if "kwargs" not in inspect.signature(PagedAttentionCache.update).parameters:
        return "it needs transformers 5.23"
    try:
        flash_kernels.choose(device, dtype, heads(config))
    except RuntimeError as error:
        return str(error)
    return None


def heads(config: Any) -> flash_kernels.Heads:
    """Return the head sizes of a model's attention."""
    from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

    kv = int(find_num_key_value_heads(config))
    return flash_kernels.Heads(int(find_head_dim(config)), config.num_attention_heads // kv, kv)
