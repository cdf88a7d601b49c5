"""Sizes off the beaten track, by name: a family, and what it has otherwise than the small ones of `architectures`."""

from __future__ import annotations

from typing import Any

FULL = {"sliding_window": None, "layer_types": ["full_attention"] * 4}


def _rope(kind: str = "default", **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def _factors(size: int) -> dict[str, Any]:
    return {"short_factor": [1.0] * size, "long_factor": [2.0] * size, "original_max_position_embeddings": 400}


UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {
    # Heads: of unusual sizes, which rotary embeddings and pages have too.
    **{f"heads of {size}": ("llama", {"head_dim": size}) for size in (4, 8, 12, 20, 80, 96, 192, 256)},
    "one kv head": ("llama", {"num_key_value_heads": 1}),
    "one small kv head": ("llama", {"num_key_value_heads": 1, "head_dim": 12}),
    "as many kv heads": ("llama", {"num_key_value_heads": 4}),
    "seven heads": ("qwen2", {"hidden_size": 56, "num_attention_heads": 7, "num_key_value_heads": 1}),
    "three odd heads": (
        "llama",
        {"hidden_size": 66, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 22},
    ),
    # Layers and vocabularies.
    "three layers": ("llama", {"num_hidden_layers": 3}),
    "one layer": ("llama", {"num_hidden_layers": 1}),
    "odd sizes": ("llama", {"vocab_size": 32003, "hidden_size": 60, "intermediate_size": 101, "head_dim": 20}),
    "odd experts": ("qwen3_moe", {"moe_intermediate_size": 36, "hidden_size": 60, "head_dim": 20}),
    "three of six experts": ("qwen3_moe", {"num_experts": 6, "num_experts_per_tok": 3}),
    "odd gpt2": ("gpt2", {"vocab_size": 509, "n_positions": 333}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "gelu": ("llama", {"hidden_act": "gelu", "intermediate_size": 98, "mlp_bias": True}),
    # Positions: fewer than a step, than a page, many more.
    "333 positions": ("llama", {"max_position_embeddings": 333}),
    "a million positions": ("llama", {"max_position_embeddings": 1_000_000}),
    "llama3": (
        "llama",
        _rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            **{
                "original_max_position_embeddings": 128,
            },
        ),
    ),
    "yarn": ("llama", _rope("yarn", factor=8.0, original_max_position_embeddings=64)),
    "longrope": ("phi3", {**FULL, **_rope("longrope", **_factors(8)), "original_max_position_embeddings": 400}),
    "a part turned": ("phi3", {**FULL, **_rope(partial_rotary_factor=0.75), "hidden_size": 128, "head_dim": 32}),
    "phi-2's heads": ("phi", {"hidden_size": 320, **_rope(partial_rotary_factor=0.4)}),
    "normed phi": ("phi", {"qk_layernorm": True}),
    "pythia's heads": ("gpt_neox", {"hidden_size": 320, "use_parallel_residual": False}),
    # Windows: none, shorter than a page, longer than most prompts.
    **{
        f"{family} in full": (family, {"sliding_window": None})
        for family in ("mistral", "mixtral", "phi3", "starcoder2")
    },
    **{f"{family} in full": (family, FULL) for family in ("exaone4", "smollm3")},
    "short window": ("mistral", {"sliding_window": 5}),
    "long window": ("mistral", {"sliding_window": 300}),
    "gemma's short window": ("gemma2", {"sliding_window": 5}),
    "sinks in a short window": ("gpt_oss", {"sliding_window": 5}),
    # What families do in other ways.
    "norms after": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "clipped": ("olmo", {"clip_qkv": 0.5}),
    "normed cohere": ("cohere", {"use_qk_norm": True}),
    "multipliers": ("granite", {"attention_multiplier": 0.3, "residual_multiplier": 0.5, "logits_scaling": 2.0}),
    "seeing, odd": ("llava", {"head_dim": 20, "num_key_value_heads": 2, "vocab_size": 509}),
}
