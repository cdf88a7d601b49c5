"""Models of a known shape with random values, made on the device: they cost the same time as real weights."""

from __future__ import annotations

from typing import Any

from benchmark.node.model.load import LoadedModel

# config.json of meta-llama/Llama-3.1-8B-Instruct
LLAMA_3_1_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
# Large enough that a step on a CPU is mostly the model, small enough to wait for.
SMALL: dict[str, Any] = {**TINY, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
# config.json of meta-llama/Llama-3.2-1B-Instruct, but for embeddings that are not tied: 3 GB in half precision.
LLAMA_3_2_1B: dict[str, Any] = {
    **LLAMA_3_1_8B,
    **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64},
}
SHAPES = {"llama-3.1-8b": LLAMA_3_1_8B, "llama-3.2-1b": LLAMA_3_2_1B, "small": SMALL, "tiny": TINY}


def make_on_device(shape: str, dtype: str, device: str) -> LoadedModel:
    """Return a model of that shape with random values; it has no tokenizer: give it prompts of token ids."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            config = LlamaConfig(**SHAPES[shape], bos_token_id=0, eos_token_id=1)
            model: Any = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    details = {"architecture": type(model).__name__, "parameters": parameters, "dtype": dtype, "device": device}
    return LoadedModel(model, None, {**details, "weights": f"random, in the shape of {shape}"})
