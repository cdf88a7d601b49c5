"""Tiny random models of many families, made on the spot with transformers' own classes.

`python -m tests.architectures [family ...]` runs every one of them with `sequential` and `continuous` and prints what
came of it: the table in docs/operations.md. It takes minutes; the suite takes a few of them. On a GPU (`--device cuda
--dtype bfloat16`) it says which attention answered and what the cross-check saw: half precision decides between near
equals. There each family has a process of its own: a kernel that fails takes the GPU from all that its process does
after it. `llama@96` is Llama with heads of that size; `tests/unusual.py` has more by name. `--as-gpu` does on a CPU
what is done on a GPU, as far as that goes (`tests/as_gpu.py`), and holds the tokens against transformers' `generate`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.node.engines import continuous, sequential
from benchmark.node.interfaces import Answer, Engine, Prompt, Query
from benchmark.node.model.architecture import model_class
from benchmark.node.model.tiny import make_tiny_model
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unusual import UNUSUAL

# What configuration classes call their sizes; of these each is given those that it has.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "linear_num_key_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank"), 32),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "head_dim", "kv_lora_rank", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("v_head_dim", "state_size", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **{"qk_rope_head_dim": 8, "linear_num_value_heads": 4, "global_head_dim": 32, "num_kv_shared_layers": 0},
    **{"vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512},
}
VISION: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "depth"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads"), 2),
    **{"image_size": 28, "patch_size": 14, "out_hidden_size": 64, "vision_output_dim": 64},
}
LATENT = {"num_key_value_heads": 4, "head_dim": 8}
EARS = dict.fromkeys(("hidden_size", "intermediate_size", "ext_pw_out_channel", "depthwise_separable_out_channel"), 32)
# What a family wants otherwise.
OWN: dict[str, dict[str, Any]] = {
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "gemma2": {"attn_logit_softcapping": 0.5},  # so low that whoever leaves it out answers otherwise
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "phi4_multimodal": {
        "vision_config": {**VISION, "num_hidden_layers": 2, "num_attention_heads": 2},
        "audio_config": {**EARS, "nemo_conv_channels": 32, "num_blocks": 2, "num_attention_heads": 2},
    },
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
}
# Whose layers are all of one kind, which is no word of theirs to say.
WITHOUT_KINDS = ("mamba", "mamba2")
BATCHED = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text"),
    *(
        "gemma3",
        "mistral3",
        "ministral",
        "qwen3_vl",
        "llava",
        "phi",
        "phi3",
        "phi4_multimodal",
        "phimoe",
        "gpt2",
        "gpt_neox",
        "opt",
    ),
    *("olmo", "olmo2", "olmo3", "olmoe", "granite", "granitemoe", "cohere", "cohere2", "gpt_oss", "glm4", "glm4_moe"),
    *("ernie4_5", "exaone4", "starcoder2", "smollm3", "seed_oss", "hunyuan_v1_dense", "minimax_m2", "apertus", "dbrx"),
)
ALONE = (
    *("falcon", "bloom", "mpt", "gptj", "gpt_neo", "gpt_bigcode", "nemotron", "stablelm", "diffllama", "doge"),
    *("jetmoe", "deepseek_v2", "deepseek_v3", "gemma4_text", "mimo_v2_flash", "llama4", "llama4_text"),
    *("mamba", "mamba2", "rwkv", "qwen3_next", "qwen3_5", "olmo_hybrid", "nemotron_h", "minimax", "zamba2", "mllama"),
)
PROMPTS = (5, 40, 23, 17, 60)
GENERATION = Generation(max_new_tokens=12, min_new_tokens=12)


def config(family: str) -> Any:
    """Return a small configuration of a family, or with heads of a size; texts alone where it sees images too."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family, unusual = UNUSUAL.get(family, (family, {}))
    family, _, size = family.partition("@")
    kind, own = CONFIG_MAPPING[family], {**OWN.get(family, {}), **unusual}
    if size:
        return kind(**{**_small(kind), **own, "head_dim": int(size)})
    if "text_config" not in kind.sub_configs or family == "qwen3_5":
        return kind(**{**_small(kind), **own})
    whole = kind()
    parts = {"text_config": {**_small(type(whole.text_config)), "model_type": whole.text_config.model_type, **own}}
    if "vision_config" in kind.sub_configs:
        known = whole.vision_config.to_dict()
        sizes = {name: value for name, value in VISION.items() if name in known}
        parts["vision_config"] = {**sizes, "model_type": known["model_type"]}
    return kind(**parts)


def model(family: str, seed: int = 0) -> Any:
    """Return a model of that family whose answers depend on every token: its weights are larger than fresh ones."""
    import torch

    own = config(family)
    torch.manual_seed(seed)
    made = model_class(own).from_config(own, dtype=torch.float32).eval()
    for weights in made.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.15)
    return made


def save(family: str, directory: Path, tokenizer: Path, device: str = "cpu", dtype: str = "float32") -> Settings:
    """Write a model as its makers would, with a tokenizer, and return the settings of a node where it lies."""
    model(family).save_pretrained(directory)
    for path in tokenizer.iterdir():
        if path.name not in ("config.json", "generation_config.json") and path.suffix != ".safetensors":
            shutil.copy(path, directory)
    return Settings.model_validate(
        {"benchmark_model": str(directory), "benchmark_device": device, "benchmark_dtype": dtype}
    )


def queries(lengths: Sequence[int] = PROMPTS, vocabulary: int = 500) -> list[Query]:
    """Return prompts of token ids, shorter and longer than the sliding windows are."""
    draw = random.Random(1)
    return [
        Query(number, Prompt(str(number), "", tuple(draw.choices(range(3, vocabulary), k=length))), number)
        for number, length in enumerate(lengths)
    ]


class Answers:
    """Keeps what an engine answers."""

    def __init__(self) -> None:
        self.tokens: dict[int, tuple[int, ...]] = {}
        self.errors: list[str] = []

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Nothing."""

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """Keep it."""
        self.tokens[query.index] = answer.token_ids

    def failed(self, query: Query, error: str) -> None:
        """Keep that."""
        self.errors.append(error)


def ask(engine: Engine, given: Sequence[Query] = ()) -> dict[int, tuple[int, ...]]:
    """Return the engine's answers to these queries, else to all prompts; AssertionError where one failed."""
    heard, asked = Answers(), given or queries()
    for query in asked:
        engine.submit(query, heard)
    while len(heard.tokens) + len(heard.errors) < len(asked):
        time.sleep(0.005)
    assert not heard.errors, heard.errors
    return heard.tokens


def answers(settings: Settings, name: str) -> dict[int, tuple[int, ...]]:
    """Load an engine and return its answers; raises as loading does."""
    return load_and_ask(settings, name)[0]


def load_and_ask(
    settings: Settings, name: str, options: dict[str, Any] | None = None, given: Sequence[Query] = ()
) -> tuple[dict[int, tuple[int, ...]], dict[str, Any]]:
    """Return an engine's answers, and its details. `options`: of `continuous`, beside the usual."""
    engine: Engine
    if name == "sequential":
        engine = sequential.Engine(settings, GENERATION, {})
    else:
        pages = {"page_size": 16} if settings.benchmark_device == "cpu" else {}
        engine = continuous.Engine(settings, GENERATION, {**pages, "num_blocks": 64, **(options or {})})
    try:
        details = engine.load().details
        return ask(engine, given), details
    finally:
        engine.close()


def generated(settings: Settings, given: Sequence[Query] = ()) -> dict[int, tuple[int, ...]]:
    """Return what transformers' own `generate` answers greedily to all prompts, with nothing of ours around it."""
    import torch
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(settings.benchmark_model)
    plain = model_class(own).from_pretrained(settings.benchmark_model, dtype=torch.float32).eval()
    words = {
        "do_sample": False,
        "max_new_tokens": GENERATION.max_new_tokens,
        "min_new_tokens": GENERATION.min_new_tokens,
    }
    found = {}
    for query in given or queries():
        prompt = torch.tensor([query.prompt.token_ids])
        answer = plain.generate(prompt, attention_mask=torch.ones_like(prompt), **words)
        found[query.index] = tuple(answer[0, prompt.shape[1] :].tolist())
    return found


def outcome(family: str, tokenizer: Path, directory: Path, device: str = "cpu", dtype: str = "float32") -> str:
    """Return one line of the table."""
    if device == "as a GPU":
        from tests import as_gpu

        return as_gpu.outcome(family, tokenizer, directory, dtype)
    try:
        settings = save(family, directory, tokenizer, device, dtype)
        alone = answers(settings, "sequential")
    except Exception as error:  # a family's own code raises what it likes, and the table goes on
        return f"sequential: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    try:
        together, details = load_and_ask(settings, "continuous")
    except BenchmarkError as error:
        return f"refused: {str(error).partition('cannot serve it: ')[2] or error}"
    same = sum(a == b for number in alone for a, b in zip(alone[number], together[number], strict=True))
    found = "the same tokens" if together == alone else f"{same} of {len(PROMPTS) * GENERATION.max_new_tokens} tokens"
    return found if device == "cpu" else f"{found}; {details['attention']}; {details['cross_check']}"


def outcomes(families: Sequence[str], place: Path, device: str, dtype: str) -> Iterator[str]:
    """Yield one line for each family, also where its process does not survive it."""
    tokenizer, context = place / "tokenizer", multiprocessing.get_context("spawn")
    make_tiny_model(tokenizer)
    each = 1 if device == "cuda" else len(families)
    left = list(families)
    while left:
        with ProcessPoolExecutor(1, context) as pool:
            for family in left[:each]:
                try:
                    found = pool.submit(outcome, family, tokenizer, place / family, device, dtype).result()
                except BrokenProcessPool:
                    yield f"{left.pop(0)}: its process ended"
                    break
                left.pop(0)
                yield f"{family}: {found}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--as-gpu", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("bfloat16", "float16", "float32"))
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    families = given.families or [*BATCHED, *(UNUSUAL if given.as_gpu else ALONE)]
    device = "as a GPU" if given.as_gpu else given.device
    with tempfile.TemporaryDirectory() as scratch:
        for line in outcomes(families, Path(scratch), device, given.dtype):
            print(line, flush=True)


def _small(kind: Any) -> dict[str, Any]:
    plain = kind()
    known = {*plain.to_dict(), *plain.attribute_map}
    given = {name: value for name, value in SMALL.items() if name in known}
    kinds = getattr(plain, "layer_types", None)
    if kinds and kind.model_type not in WITHOUT_KINDS:
        each = list(dict.fromkeys(kinds))
        place = "layer_types" if "layer_types" in plain.to_dict() else plain.attribute_map["layer_types"]
        given[place] = [each[number % len(each)] for number in range(4)]
    return given


if __name__ == "__main__":
    main()
