"""transformers' eager attention over the paged cache, plus the soft cap on scores that it lacks (Gemma 2)."""

from __future__ import annotations

from typing import Any

NAME = "paged|eager"


def register() -> None:
    """Register it in place of transformers' own, under the name that its continuous batching uses."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, forward)


def forward(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Any, Any]:
    """Attend, called as transformers' AttentionInterface: (1, heads, tokens, size) each; returns (1, tokens, ...)."""
    import torch
    from transformers.integrations import eager_paged

    softcap = kwargs.pop("softcap", None)
    if softcap is None:
        answer: tuple[Any, Any] = eager_paged.eager_paged_attention_forward(
            module, query, key, value, attention_mask, scaling, **kwargs
        )
        return answer
    if hasattr(module, "sinks"):
        raise ValueError("Attention with both a soft cap and sinks is not supported.")
    cache = kwargs.pop("cache")
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.tanh(torch.matmul(query, key.transpose(2, 3)) * scaling / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights
