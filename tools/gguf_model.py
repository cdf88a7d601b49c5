"""Write a Gemma 3 that lies in a GGUF file as transformers reads it: config.json, safetensors and a tokenizer.

python -m tools.gguf_model FILE.gguf DIRECTORY

For trained weights from a package index: transformers reads such files in minutes, and cannot save what it read. Needs
the package gguf, whose own reader takes minutes for a vocabulary of 262,144 words: only its `dequantize` is used.
"""

from __future__ import annotations

import argparse
import json
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# The numbers of GGUF's types of values, and how struct reads each; 8 is a text, 9 a list.
FORMATS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")))
TEXT, LIST = 8, 9
# The kinds of words that are no text to be merged: unknown, control, user-defined, unused.
NO_TEXT = (2, 3, 4, 5)
# Of a layer: GGUF's word and the model's.
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Gemma 3's own chat template, of texts alone: a base model has none, and a server is asked in turns too.
TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


class Gguf:
    """A GGUF file: `values` by key, and tensors."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 4
        if self._data[:4] != b"GGUF":
            raise SystemExit(f"{path} is no GGUF file.")
        _, tensors, values = self._one("I"), self._one("Q"), self._one("Q")
        self.values = {self._text(): self._value(self._one("I")) for _ in range(values)}
        self._described = [self._tensor() for _ in range(tensors)]
        align = int(self.values.get("general.alignment", 32))
        self._begin = -(-self._at // align) * align

    def tensors(self) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Yield name and values of each; the last dimension varies fastest."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

        for name, shape, kind, offset in self._described:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            begin = self._begin + offset
            raw = np.frombuffer(self._data[begin : begin + int(np.prod(shape)) // block * size], dtype=np.uint8)
            rows = raw.reshape(*shape[:-1], shape[-1] // block * size)
            yield name, dequantize(rows, GGMLQuantizationType(kind)).astype(np.float32).reshape(shape)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._text(), self._one("I")
        shape = tuple(reversed([self._one("Q") for _ in range(dimensions)]))
        return name, shape, self._one("I"), self._one("Q")

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind != LIST:
            return self._one(FORMATS[kind])
        inner, count = self._one("I"), self._one("Q")
        if inner in (TEXT, LIST):
            return [self._value(inner) for _ in range(count)]
        format_ = f"<{count}{FORMATS[inner]}"
        self._at += struct.calcsize(format_)
        return list(struct.unpack_from(format_, self._data, self._at - struct.calcsize(format_)))

    def _text(self) -> str:
        length = self._one("Q")
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def _one(self, letter: str) -> Any:
        (value,) = struct.unpack_from(f"<{letter}", self._data, self._at)
        self._at += struct.calcsize(f"<{letter}")
        return value


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json; what GGUF does not say is Gemma 3's own."""
    own = {name.removeprefix("gemma3."): value for name, value in values.items()}
    layers = own["block_count"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "hidden_size": own["embedding_length"],
        "intermediate_size": own["feed_forward_length"],
        "num_hidden_layers": layers,
        "num_attention_heads": own["attention.head_count"],
        "num_key_value_heads": own["attention.head_count_kv"],
        "head_dim": own["attention.key_length"],
        "query_pre_attn_scalar": own["attention.key_length"],
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": own["context_length"],
        "rms_norm_eps": round(own["attention.layer_norm_rms_epsilon"], 9),
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": own["rope.freq_base"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "sliding_window": own["attention.sliding_window"],
        "layer_types": ["full_attention" if (n + 1) % 6 == 0 else "sliding_attention" for n in range(layers)],
        "tie_word_embeddings": True,
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "pad_token_id": values["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def weights(gguf: Gguf) -> Iterator[tuple[str, Any]]:
    """Yield name and values as the model calls them. GGUF keeps what a norm multiplies by, Gemma that less one."""
    for name, values in gguf.tensors():
        if name in WHOLE:
            called = WHOLE[name]
        else:
            _, number, part, _ = name.split(".")
            called = f"model.layers.{number}.{LAYER[part]}.weight"
        yield called, values - 1 if "norm" in called else values


def tokenizer(values: Mapping[str, Any]) -> Any:
    """Return the tokenizer: byte pairs are merged in the order of the words' scores, as SentencePiece does."""
    from tokenizers import AddedToken
    from transformers import GemmaTokenizer

    words, scores, kinds = (values[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = []
    for word, score, kind in zip(words, scores, kinds, strict=True):
        if kind in NO_TEXT:
            continue
        parts = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
        found = [(vocabulary[a], vocabulary[b], a, b) for a, b in parts if a in vocabulary and b in vocabulary]
        merges += [(-score, len(a), len(b), a, b) for _, _, a, b in sorted(found)]
    merges.sort(key=lambda merge: merge[:3])
    made = GemmaTokenizer(vocab=vocabulary, merges=[(a, b) for *_, a, b in merges], add_bos_token=True)
    made.chat_template = values.get("tokenizer.chat_template", TURNS)
    own = [word for word, kind in zip(words, kinds, strict=True) if kind == 4]  # user-defined
    made.add_tokens([AddedToken(word, normalized=False) for word in own])
    return made


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(prog="python -m tools.gguf_model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    from safetensors.numpy import save_file

    gguf, directory = Gguf(arguments.file), arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer(gguf.values).save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(config(gguf.values), indent=2), encoding="utf-8")
    # Last: with it the model is whole.
    save_file(dict(weights(gguf)), directory / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
