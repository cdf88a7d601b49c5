"""transformers' settings for choosing tokens: all explicit, so that none comes from the model's own file."""

from __future__ import annotations

from typing import Any

from benchmark.node.model.load import LoadedModel
from benchmark.profiles import Generation


def end_tokens(loaded: LoadedModel) -> list[int]:
    """Return the tokens that end an answer: the model's own, or its tokenizer's; a few models have none."""
    end = loaded.model.generation_config.eos_token_id
    if end is None:
        end = loaded.tokenizer.eos_token_id
    ends = end if isinstance(end, list) else [end]
    return [token for token in ends if token is not None]


def generation_config(loaded: LoadedModel, wanted: Generation, temperature: float, **more: Any) -> Any:
    """Return the profile's settings with that temperature (0: no sampling) as transformers' GenerationConfig."""
    from transformers import GenerationConfig

    end = end_tokens(loaded)
    sampling = temperature > 0
    settings: dict[str, Any] = {
        "max_new_tokens": wanted.max_new_tokens,
        "do_sample": sampling,
        "temperature": temperature if sampling else 1.0,
        "top_p": wanted.top_p if sampling else 1.0,
        "top_k": wanted.top_k if sampling else None,
        "repetition_penalty": 1.0,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": end or None,
        "pad_token_id": end[0] if end else None,
    }
    return GenerationConfig(**{**settings, **more})
