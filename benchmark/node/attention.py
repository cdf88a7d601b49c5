"""Which attention the continuous engine computes with: what this machine has, without asking any network.

Beside transformers' own there is `torch_flash`: the flash attention that comes with torch, on the paged cache. It is
what a GPU gets where no flash-attn package is installed: sdpa and eager attend over the packed requests with one dense
mask, which costs as much as if every request could see all others.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

# In the name, "flash" makes transformers pack the requests without a mask; a digit would promise the flash-attn
# package's own decoding kernel.
TORCH_FLASH = "torch_flash"
Choice = Literal["auto", "sdpa", "paged|eager", "torch_flash", "flash_attention_2", "flash_attention_3"]

# The largest difference from the exact answer, of values around 1, that half precision explains.
TRIAL_TOLERANCE = 0.02


def automatic(config: Any, device: str, dtype: str) -> str:
    """Return the fastest attention there is. On a CPU that is eager: 1.7 times sdpa, which has a mask to expand."""
    if device == "cpu":
        return "paged|eager"
    fastest_first = ("flash_attention_3", "flash_attention_2", TORCH_FLASH)
    return next((name for name in fastest_first if missing(name, config, device, dtype) is None), "sdpa")


def missing(name: str, config: Any, device: str, dtype: str) -> str | None:
    """Return why this machine and model cannot do attention `name`, as the end of a sentence; None: it can."""
    if "flash" not in name:
        return None
    if device == "cpu":
        return "it needs a GPU"
    if dtype == "float32":
        return "it needs benchmark_dtype float16 or bfloat16"
    if name == TORCH_FLASH:
        return _torch_flash_missing(config, device, dtype)
    from transformers.utils import import_utils

    version = name[-1]
    # Without the fallback: it would download a kernel from the hub.
    available = getattr(import_utils, f"is_flash_attn_{version}_available", lambda: False)()
    return None if available else f"the package flash-attn (version {version}) is not installed"


def use(model: Any, name: str) -> None:
    """Make the model attend that way."""
    if name == TORCH_FLASH:
        from transformers import AttentionInterface

        AttentionInterface.register(TORCH_FLASH, forward)
        # Not set_attn_implementation: it looks for a package behind every name with "flash" in it.
        model.config._attn_implementation = TORCH_FLASH
    else:
        model.set_attn_implementation(name)


def forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attention over packed requests, as transformers' AttentionInterface calls it: (1, heads, tokens, size) each.

    Returns (1, tokens, heads, size). Raises ValueError outside continuous batching and for what the kernel has not.
    """
    if cache is None or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(f"{TORCH_FLASH} is for continuous batching, without soft caps and attention sinks.")
    # Writes the new keys and values, reads the old ones back, and picks this layer's lengths from the kwargs.
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    packed = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    starts = kwargs["cu_seq_lens_q"].int(), kwargs["cu_seq_lens_k"].int()
    answer = varlen_kernel()(*packed, *starts, kwargs["max_length_q"], kwargs["max_length_k"], scale=scaling)
    return answer.unsqueeze(0), None


@functools.cache
def varlen_kernel() -> Callable[..., Any]:
    """Return torch's kernel for packed sequences: causal, aligned to the end, fewer heads of keys allowed.

    Raises ImportError where torch is too old to have it.
    """
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True
    return functools.partial(varlen_attn, **options)


def _torch_flash_missing(config: Any, device: str, dtype: str) -> str | None:
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    if getattr(config, "sliding_window", None) or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return "the model has layers of another kind than full attention"
    if "kwargs" not in inspect.signature(PagedAttentionCache.update).parameters:
        return "it needs transformers 5.23"
    try:
        worst = _trial(device, dtype)
    except Exception as error:  # whatever this GPU, its driver or an older torch says: there is other attention
        return f"torch's kernel does not run here ({type(error).__name__}: {str(error).splitlines()[0]})"
    return None if worst < TRIAL_TOLERANCE else f"torch's kernel is wrong by {worst:.3f} here"


def _trial(device: str, dtype: str) -> float:
    """Return the largest difference between the kernel and exact attention on two short requests."""
    import torch

    lengths_q, lengths_k = (1, 3), (5, 4)
    generator = torch.Generator(device).manual_seed(0)

    def draw(tokens: int, heads: int) -> Any:
        return torch.randn(tokens, heads, 64, generator=generator, device=device).to(getattr(torch, dtype))

    query, key, value = draw(sum(lengths_q), 4), draw(sum(lengths_k), 2), draw(sum(lengths_k), 2)
    starts_q, starts_k = (torch.tensor([0, n[0], sum(n)], device=device).int() for n in (lengths_q, lengths_k))
    answer = varlen_kernel()(query, key, value, starts_q, starts_k, max(lengths_q), max(lengths_k), scale=None)
    exact = exact_attention(query, key, value, starts_q, starts_k, max(lengths_q), max(lengths_k))
    return float((answer.float() - exact.float()).abs().max())


def exact_attention(
    query: Any, key: Any, value: Any, starts_q: Any, starts_k: Any, max_q: int, max_k: int, scale: float | None = None
) -> Any:
    """Attention over packed requests in float32, one after the other: what the kernel is held against."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    answers = []
    for number in range(len(starts_q) - 1):
        span_q, span_k = (slice(int(s[number]), int(s[number + 1])) for s in (starts_q, starts_k))
        one_q, one_k, one_v = query[span_q].float(), key[span_k].float(), value[span_k].float()
        tokens_q, tokens_k = len(one_q), len(one_k)
        seen = torch.ones(tokens_q, tokens_k, dtype=torch.bool, device=query.device).tril(tokens_k - tokens_q)
        one_q, one_k, one_v = (states.transpose(0, 1) for states in (one_q, one_k, one_v))
        one = scaled_dot_product_attention(one_q, one_k, one_v, attn_mask=seen, scale=scale, enable_gqa=True)
        answers.append(one.transpose(0, 1))
    return torch.cat(answers).to(query.dtype)
