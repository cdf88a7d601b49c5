"""Properties of a model before its weights are loaded: its sizes, and whether continuous batching can serve it.

This reads no keys of config.json, as families use different names. Instead the model is created without memory (torch's
device "meta") and runs one step of continuous batching with an attention that only observes. So it is known, not
guessed, what each layer caches, and whether it uses the engine's cache and mask.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import SetupError, Unfit
from benchmark.importing import importing, not_loading
from benchmark.provisioned import FROM_SERVERS
from benchmark.words import brief, sentences

FULL, SLIDING = "full_attention", "sliding_attention"
# A step with tokens of two requests, and cached tokens: numbers that are unlikely to equal any size of a model.
TOKENS, CACHED = 7, 11
ATTENTION = "looking"
# Families' names for the number of experts that a token uses.
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")


@dataclass(frozen=True)
class Sizes:
    """The sizes that determine the memory of a model's steps and of its cache."""

    hidden: int
    """Values in a token's state."""
    widest: int
    """The most values that a layer computes for one token at once."""
    vocabulary: int
    layers: int
    kv_values: int
    """Values of keys, and of values, each, in one layer, for one token."""


@dataclass
class Look:
    """What one step showed."""

    sizes: Sizes | None = None
    """None: they are unknown."""
    unfit: str | None = None
    """Why continuous batching cannot serve it, as the end of a sentence; None: it can."""
    needs: frozenset[str] = frozenset()
    """What its attention needs beyond the usual: "softcap" (on scores), "sinks"."""


@dataclass
class _Seen:
    """The layers' calls of the attention: by layer, the shape of its keys and values (heads, head size)."""

    shapes: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    unfit: str | None = None
    needs: set[str] = field(default_factory=set)


def read_config(snapshot: Path) -> Any:
    """Return the model's configuration as read by transformers; raises SetupError if it does not support the model."""
    from transformers import AutoConfig, __version__

    try:
        return AutoConfig.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # configuration classes validate themselves, each in its own way
        if unloaded := not_loading(error):
            raise SetupError(unloaded) from error
        reported = sentences(brief(str(error)))
        raise SetupError(
            f"{snapshot / 'config.json'} does not describe a model that transformers {__version__} knows: {reported} "
            f"Use {FROM_SERVERS}, which do not need this version to know it."
        ) from None


def text_config(config: Any) -> Any:
    """Return the language model's part of a configuration, if it also covers images or sound."""
    return config.get_text_config(decoder=True)


def name(config: Any) -> str:
    """Return the architecture's name: LlamaForCausalLM, or the family's name if config.json has none."""
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def require_batching(config: Any) -> Look:
    """Return what one step of the model showed; raises Unfit if continuous batching cannot serve it."""
    found = look(config)
    if found.unfit is not None:
        raise Unfit(
            f"The engine continuous does not support this architecture ({name(config)}): use {FROM_SERVERS}, or "
            f"sequential. Continuous batching cannot serve it: {found.unfit}."
        )
    return found


def look(config: Any) -> Look:
    """Return what one step of a model with that configuration shows; takes about a second, without loading weights."""
    if reason := _not_by_its_kind(config):
        return Look(unfit=reason)
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    config = copy.deepcopy(config)  # its attention is changed below
    text, seen = text_config(config), _Seen()
    with importing(), torch.device("meta"):
        try:
            model = model_class(config).from_config(config, dtype=torch.float16, attn_implementation="eager").eval()
        except Exception as error:  # anything that a family's own code raises
            return Look(unfit=f"it cannot be created ({_words(error)})")
    if getattr(model, "_is_stateful", False):
        return Look(unfit="it keeps a state between tokens, not only keys and values")
    if not model._can_set_attn_implementation():
        return Look(unfit="it has its own attention, which cannot be replaced")
    AttentionInterface.register(ATTENTION, _Looking(seen))
    AttentionMaskInterface.register(ATTENTION, lambda *words, **more: None)
    try:
        _step(model, config, text)
    except Exception as error:
        seen.unfit = seen.unfit or (
            "it decides what to compute from values of all queries of a step"
            if "meta tensors" in str(error)
            else f"a step fails ({_words(error)})"
        )
    unfit = seen.unfit or _misses(text, seen)
    if unfit is not None:
        return Look(unfit=unfit)
    return Look(sizes=_sizes(model, seen), needs=frozenset(seen.needs))


def model_class(config: Any) -> Any:
    """Return the transformers class that loads such a model for text generation."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    plain, seeing = AutoModelForCausalLM._model_mapping, AutoModelForImageTextToText._model_mapping
    if type(config) not in seeing:
        return AutoModelForCausalLM
    # A checkpoint saved with its vision part names its weights differently from the language model alone.
    kinds = seeing[type(config)]
    whole = name(config) in {kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))}
    return AutoModelForImageTextToText if whole or type(config) not in plain else AutoModelForCausalLM


def shared_positions(text: Any) -> int | None:
    """Return the position up to which queries in a batch have the same rotary embedding as alone; None: all positions.

    Beyond it longrope (Phi-3, Phi-4) uses other frequencies, for all queries of a step.
    """
    return min((int(one["original_max_position_embeddings"]) for one in _ropes(text, "longrope")), default=None)


def _ropes(text: Any, kind: str) -> list[dict[str, Any]]:
    """Return the configuration of all rotary embeddings of a kind; some families have several."""
    given = getattr(text, "rope_parameters", None) or {}
    each = [given, *(part for part in given.values() if isinstance(part, dict))]
    return [one for one in each if kind in str(one.get("rope_type", ""))]


def _not_by_its_kind(config: Any) -> str | None:
    """Return why a model is ruled out by its configuration alone."""
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder, and a paged cache has no place for its states"
    try:
        text = text_config(config)
        kinds = layer_kinds(text)
    except Exception as error:
        return f"its layers are unknown ({_words(error)})"
    if unknown := sorted(set(kinds) - {FULL, SLIDING}):
        return (
            f"it has layers of {', '.join(map(repr, unknown))}, and the paged cache supports only full and sliding "
            "attention"
        )
    if _ropes(text, "dynamic"):
        return "its rotary embedding (dynamic) is recomputed for all queries of a step, from the longest"
    window = getattr(text, "sliding_window", None)
    if SLIDING in kinds and not (isinstance(window, int) and window > 0):
        return "it has layers of sliding attention but no window size"
    return None


def layer_kinds(text: Any) -> list[str]:
    """Return each layer's kind of attention, as transformers' paged cache reads it."""
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return [FULL if getattr(text, "sliding_window", None) is None else SLIDING] * int(text.num_hidden_layers)
    return [str(kind) for kind in kinds]


class _Looking:
    """An attention that records its arguments, and returns an empty result."""

    def __init__(self, seen: _Seen) -> None:
        self.seen = seen

    def __call__(
        self, module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, *words: Any, **more: Any
    ) -> tuple[Any, None]:
        layer, seen = int(module.layer_idx), self.seen
        seen.calls[layer] += 1
        seen.shapes.setdefault(layer, []).append((*key.shape[1::2], *value.shape[1::2]))
        seen.needs |= {
            need for need, word in (("softcap", "softcap"), ("sinks", "s_aux")) if more.get(word) is not None
        }
        if more.get("cache") is not self:
            seen.unfit = "its attention does not get the paged cache"
        elif attention_mask is None or tuple(attention_mask.shape[-2:]) != (TOKENS, TOKENS + CACHED):
            seen.unfit = "its attention makes its own mask"
        elif getattr(module, "is_causal", True) is False:
            seen.unfit = "its attention also looks at later tokens"
        elif more.get("position_bias") is not None:
            seen.unfit = "its attention adds a position bias, which the paged attention does not support"
        elif more.get("s_aux") is not None and not hasattr(module, "sinks"):
            seen.unfit = "its attention has sinks where the paged attention does not expect them"
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None


def _step(model: Any, config: Any, text: Any) -> None:
    """Run a step as transformers' continuous batching does, without values."""
    import torch
    from transformers import AttentionInterface

    for one in {id(part): part for part in (config, text, model.config, *_configs(model))}.values():
        one._attn_implementation = ATTENTION
    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.forward = _no_experts  # which experts compute depends on the values, which do not exist here
    kinds = list(dict.fromkeys(layer_kinds(text)))
    mask = torch.zeros(1, 1, TOKENS, TOKENS + CACHED, dtype=torch.float16, device="meta")
    numbers = torch.zeros(1, TOKENS, dtype=torch.int64, device="meta")
    by_kind: dict[str, Any] = dict.fromkeys(kinds, mask)
    with torch.no_grad(), torch.device("meta"):
        model(
            input_ids=numbers,
            position_ids=numbers,
            attention_mask=by_kind if len(kinds) > 1 else mask,
            cache=AttentionInterface()[ATTENTION],
            use_cache=False,
            is_causal=False,
        )


def _configs(model: Any) -> list[Any]:
    return [module.config for module in model.modules() if hasattr(module, "config")]


def _no_experts(states: Any, *words: Any, **more: Any) -> Any:
    return states


def _misses(text: Any, seen: _Seen) -> str | None:
    """Return what the paged cache, which has one shape for all layers, cannot hold."""
    layers = int(text.num_hidden_layers)
    if set(seen.calls) != set(range(layers)):
        return f"{len(seen.calls)} of its {layers} layers call the attention that the engine inserts"
    if set(seen.calls.values()) != {1}:
        return "its layers call the attention more than once"
    shapes = {shape for each in seen.shapes.values() for shape in each}
    expected = _cached_shape(text)
    if shapes != {(*expected, *expected)}:
        return "the shape of its layers' keys and values differs from the paged cache's"
    return None


def _cached_shape(text: Any) -> tuple[int, int]:
    """Return the number and size of heads that transformers' paged cache reads from a configuration."""
    try:
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    except Exception:  # some families have a size per layer, and raise
        return 0, 0
    return int(heads), int(size)


def _sizes(model: Any, seen: _Seen) -> Sizes | None:
    """Return the sizes seen in the model itself; None if its weights do not show them."""
    output = model.get_output_embeddings()
    table = model.get_input_embeddings()
    if output is None or table is None or not hasattr(output, "weight"):
        return None
    heads, size = seen.shapes[0][0][:2]
    hidden = int(output.weight.shape[-1])
    widest = _widest(model, output, hidden)
    if widest is None:
        return None
    return Sizes(
        hidden=hidden,
        widest=widest,
        vocabulary=int(output.weight.shape[0]),
        layers=len(seen.calls),
        kv_values=heads * size,
    )


def _widest(model: Any, output: Any, hidden: int) -> int | None:
    """Return the most values that a layer computes per token, by its largest matrix; None: not known.

    Of the experts, the chosen ones compute, each with the same width.
    """
    widths = [0]
    for module in model.modules():
        weights = [one for one in module.parameters(recurse=False) if one.dim() >= 2]
        kind = type(module).__name__
        if module is output or kind.endswith("Embedding") or not weights:
            continue
        if kind.endswith("Experts"):
            chosen = next((count for name in CHOSEN if isinstance(count := _reported(model.config, name), int)), None)
            if chosen is None:
                return None
            own = [size for one in weights if one.dim() > 2 for size in one.shape[-2:] if size != hidden]
            widths.append(chosen * min(own, default=hidden))
        elif all(one.dim() == 2 for one in weights):
            widths.append(max(max(one.shape) for one in weights))
    return int(max(widths))


def _reported(config: Any, name: str) -> Any:
    places = (text_config(config), getattr(config, "ffn_config", None))
    return next((found for place in places if (found := getattr(place, name, None)) is not None), None)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
