"""What a model is, before its weights are loaded: how large, and whether continuous batching can serve it.

No key of config.json is read here, for families name theirs in many ways. The model is made without memory (torch's
device "meta") and takes one step of continuous batching with an attention that only looks: what each layer asks to be
kept, and whether the engine's cache and mask reach it, is then known, not guessed.
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
# A step of two requests' tokens, more of which lie in the cache: numbers that no size of a model is likely to equal.
TOKENS, CACHED = 7, 11
ATTENTION = "looking"
# What families call the number of experts that compute of a token.
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")


@dataclass(frozen=True)
class Sizes:
    """What the memory of a model's steps and of its cache is worked out from."""

    hidden: int
    """Values of a token's state."""
    widest: int
    """The most values that one layer computes of one token at once."""
    vocabulary: int
    layers: int
    kv_values: int
    """Of keys and of values each, in one layer, for one token."""


@dataclass
class Look:
    """What one step showed."""

    sizes: Sizes | None = None
    """None: they cannot be known."""
    unfit: str | None = None
    """Why continuous batching cannot serve it, as the end of a sentence; None: it can."""
    needs: frozenset[str] = frozenset()
    """What its attention asks for beyond the usual: "softcap" (on scores), "sinks"."""


@dataclass
class _Seen:
    """What the layers asked of the attention: by layer, the shape of its keys and values (heads, size of a head)."""

    shapes: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    unfit: str | None = None
    needs: set[str] = field(default_factory=set)


def read_config(snapshot: Path) -> Any:
    """Return the model's configuration as transformers reads it; raises SetupError where it knows no such model."""
    from transformers import AutoConfig, __version__

    try:
        return AutoConfig.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the configuration classes check themselves, each in its own way
        if unloaded := not_loading(error):
            raise SetupError(unloaded) from error
        reported = sentences(brief(str(error)))
        raise SetupError(
            f"{snapshot / 'config.json'} does not describe a model that transformers {__version__} knows: {reported} "
            f"Take {FROM_SERVERS}: they do not need transformers to know it."
        ) from None


def text_config(config: Any) -> Any:
    """Return the part that describes the language model, where images or sounds are described too."""
    return config.get_text_config(decoder=True)


def name(config: Any) -> str:
    """Return what the architecture is called: LlamaForCausalLM, or the family's name where config.json has none."""
    return str((getattr(config, "architectures", None) or [config.model_type])[0])


def require_batching(config: Any) -> Look:
    """Return what one step of the model showed; raises Unfit where continuous batching cannot serve it."""
    found = look(config)
    if found.unfit is not None:
        raise Unfit(
            f"This architecture ({name(config)}) is not for the engine continuous; take {FROM_SERVERS}, or sequential. "
            f"Continuous batching cannot serve it: {found.unfit}."
        )
    return found


def look(config: Any) -> Look:
    """Say what one step of a model of that configuration shows; takes about a second, and no memory for weights."""
    if reason := _not_by_its_kind(config):
        return Look(unfit=reason)
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    config = copy.deepcopy(config)  # it is told of another attention
    text, seen = text_config(config), _Seen()
    with importing(), torch.device("meta"):
        try:
            model = model_class(config).from_config(config, dtype=torch.float16, attn_implementation="eager").eval()
        except Exception as error:  # whatever a family's own code raises
            return Look(unfit=f"it cannot be made ({_words(error)})")
    if getattr(model, "_is_stateful", False):
        return Look(unfit="it keeps a state from token to token, not keys and values alone")
    if not model._can_set_attn_implementation():
        return Look(unfit="its attention is its own and cannot be changed")
    AttentionInterface.register(ATTENTION, _Looking(seen))
    AttentionMaskInterface.register(ATTENTION, lambda *words, **more: None)
    try:
        _step(model, config, text)
    except Exception as error:
        seen.unfit = seen.unfit or (
            "it decides by values of a step, for all its queries at once, what it computes"
            if "meta tensors" in str(error)
            else f"a step of it fails ({_words(error)})"
        )
    unfit = seen.unfit or _misses(text, seen)
    if unfit is not None:
        return Look(unfit=unfit)
    return Look(sizes=_sizes(model, seen), needs=frozenset(seen.needs))


def model_class(config: Any) -> Any:
    """Return the one of transformers' classes that loads models of that kind to generate text."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    plain, seeing = AutoModelForCausalLM._model_mapping, AutoModelForImageTextToText._model_mapping
    if type(config) not in seeing:
        return AutoModelForCausalLM
    # A checkpoint that was saved with its eyes has other names for its weights than the language model alone.
    kinds = seeing[type(config)]
    whole = name(config) in {kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))}
    return AutoModelForImageTextToText if whole or type(config) not in plain else AutoModelForCausalLM


def shared_positions(text: Any) -> int | None:
    """Return the positions up to which each query of a batch has the rotary embedding that it has alone; None: all.

    Beyond them longrope (Phi-3, Phi-4) takes other frequencies, for all queries of a step.
    """
    return min((int(one["original_max_position_embeddings"]) for one in _ropes(text, "longrope")), default=None)


def _ropes(text: Any, kind: str) -> list[dict[str, Any]]:
    """Return what a configuration says of its rotary embeddings of a kind; some families have several."""
    given = getattr(text, "rope_parameters", None) or {}
    each = [given, *(part for part in given.values() if isinstance(part, dict))]
    return [one for one in each if kind in str(one.get("rope_type", ""))]


def _not_by_its_kind(config: Any) -> str | None:
    """Return why its configuration alone rules a model out."""
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder, whose states are no part of a paged cache"
    try:
        text = text_config(config)
        kinds = layer_kinds(text)
    except Exception as error:
        return f"its layers are not reported ({_words(error)})"
    if unknown := sorted(set(kinds) - {FULL, SLIDING}):
        return (
            f"it has layers of {', '.join(map(repr, unknown))}, and the paged cache is for full and sliding attention"
        )
    if _ropes(text, "dynamic"):
        return "its rotary embedding (dynamic) is made anew for all queries of a step, by the longest"
    window = getattr(text, "sliding_window", None)
    if SLIDING in kinds and not (isinstance(window, int) and window > 0):
        return "it has layers of sliding attention and no size of the window"
    return None


def layer_kinds(text: Any) -> list[str]:
    """Return each layer's kind of attention, as transformers' paged cache takes it."""
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return [FULL if getattr(text, "sliding_window", None) is None else SLIDING] * int(text.num_hidden_layers)
    return [str(kind) for kind in kinds]


class _Looking:
    """An attention that notes what it is given, and answers nothing."""

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
            seen.unfit = "the paged cache does not reach its attention"
        elif attention_mask is None or tuple(attention_mask.shape[-2:]) != (TOKENS, TOKENS + CACHED):
            seen.unfit = "its attention makes a mask of its own"
        elif getattr(module, "is_causal", True) is False:
            seen.unfit = "its attention looks at later tokens too"
        elif more.get("position_bias") is not None:
            seen.unfit = "its attention adds a bias by position, of which the paged attention knows nothing"
        elif more.get("s_aux") is not None and not hasattr(module, "sinks"):
            seen.unfit = "its attention has sinks where the paged attention does not look for them"
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None


def _step(model: Any, config: Any, text: Any) -> None:
    """Take a step as transformers' continuous batching does, with nothing in it."""
    import torch
    from transformers import AttentionInterface

    for one in {id(part): part for part in (config, text, model.config, *_configs(model))}.values():
        one._attn_implementation = ATTENTION
    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.forward = _no_experts  # which of them compute depends on the values, and there are none
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
    """Return what the paged cache, which has one shape for all layers, would not hold."""
    layers = int(text.num_hidden_layers)
    if set(seen.calls) != set(range(layers)):
        return f"{len(seen.calls)} of its {layers} layers ask the attention that the engine puts in"
    if set(seen.calls.values()) != {1}:
        return "its layers ask the attention more than once"
    shapes = {shape for each in seen.shapes.values() for shape in each}
    expected = _cached_shape(text)
    if shapes != {(*expected, *expected)}:
        return "its layers keep keys and values of another shape than the paged cache has"
    return None


def _cached_shape(text: Any) -> tuple[int, int]:
    """Return the heads and the size of each that transformers' paged cache takes from a configuration."""
    try:
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    except Exception:  # some families have a size for each layer, and say so
        return 0, 0
    return int(heads), int(size)


def _sizes(model: Any, seen: _Seen) -> Sizes | None:
    """Return what was seen of the model itself; None where it has no weights that would tell."""
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
    """Return the most values that a layer computes of a token, by the largest of its matrices; None: not known.

    Of the experts those that are chosen compute, each in the same width.
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
