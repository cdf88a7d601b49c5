"""Make models of a known shape with random weights, on the device: they take the same time as real weights.

    python3 -m benchmarks.shapes llama-3.1-8b DIRECTORY [--dtype bfloat16] [--device cuda]

writes one to the disk, with a tokenizer, for programs that read a model from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmark.node.model.load import LoadedModel
from benchmark.node.model.tiny import make_tiny_model

# The number of files of Llama-3.1-8B.
SHARDS = 4

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
# Large enough that the model dominates a step on a CPU, small enough to wait for.
SMALL: dict[str, Any] = {**TINY, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
# config.json of meta-llama/Llama-3.2-1B-Instruct, except that embeddings are not tied: 3 GB in half precision.
LLAMA_3_2_1B: dict[str, Any] = {
    **LLAMA_3_1_8B,
    **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64},
}
SHAPES = {"llama-3.1-8b": LLAMA_3_1_8B, "llama-3.2-1b": LLAMA_3_2_1B, "small": SMALL, "tiny": TINY}


def make_on_device(shape: str, dtype: str, device: str) -> LoadedModel:
    """Return a model of the shape with random values; it has no tokenizer, so give it prompts of token ids."""
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


def write_model(model: Any, directory: Path) -> list[Path]:
    """Write a model, with a tokenizer that has a word for each token id; return the files of its weights.

    A model of random weights may answer any token id, and a server turns it into text.
    """
    total = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(directory, max_shard_size=-(-total // SHARDS))
    with tempfile.TemporaryDirectory() as place:
        tiny = Path(place) / "tiny"
        make_tiny_model(tiny)
        for path in (*tiny.glob("*token*"), tiny / "chat_template.jinja"):
            shutil.copy(path, directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    words: dict[str, int] = tokenizer["model"]["vocab"]
    words |= {f"word{number}": number for number in range(len(words), model.config.vocab_size)}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return sorted(directory.glob("*.safetensors"))


def main() -> None:
    """Make a model and write it to the disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args()
    write_model(make_on_device(given.shape, given.dtype, given.device).model, given.directory)


if __name__ == "__main__":
    main()
