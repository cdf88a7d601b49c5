"""Load tokenizer and model with transformers: pinned revision, safetensors only, no remote code, nothing offloaded."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from benchmark.errors import SetupError
from benchmark.node.hub_files import ALLOW_PATTERNS, IGNORE_PATTERNS
from benchmark.settings import Settings, is_directory_path

BYTES_PER_PARAMETER = {"float16": 2, "bfloat16": 2, "float32": 4}
# Room for activations and the CUDA context, and for a KV cache whose size nobody gave.
HEADROOM_BYTES = 2 * 2**30


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate, its tokenizer, and how it was really loaded."""

    model: Any
    tokenizer: Any
    details: dict[str, JsonValue]


def find_snapshot(settings: Settings) -> Path:
    """Return the directory that holds the weights, without asking the network.

    Raises SetupError where it is not there.
    """
    if is_directory_path(settings.benchmark_model):
        directory = Path(settings.benchmark_model).expanduser().resolve()
        if not (directory / "config.json").is_file():
            raise SetupError(f"{directory} holds no model: there is no config.json in it.")
        return directory
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    cache = Path(settings.hf_cache_dir).expanduser() / "hub"
    try:
        snapshot = snapshot_download(
            settings.benchmark_model,
            revision=settings.benchmark_model_revision,
            cache_dir=cache,
            local_files_only=True,
            # A listing of the whole repository may lie there: only these files are asked for.
            allow_patterns=ALLOW_PATTERNS,
            ignore_patterns=IGNORE_PATTERNS,
        )
    except LocalEntryNotFoundError:
        raise SetupError(
            f"{settings.benchmark_model} at revision {settings.benchmark_model_revision} is not in {cache}: "
            "run playbooks/provision.yml, or python3 -m benchmark fetch-model."
        ) from None
    return Path(snapshot)


def count_parameters(snapshot: Path) -> int:
    """Return the number of parameters in a snapshot's safetensors files, from their headers alone."""
    from safetensors import SafetensorError, safe_open

    files = sorted(snapshot.glob("*.safetensors"))
    if not files:
        raise SetupError(f"{snapshot} holds no *.safetensors file; other formats are not loaded.")
    total = 0
    for path in files:
        try:
            with safe_open(path, framework="numpy") as tensors:
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 # not a dict
        except (SafetensorError, OSError) as error:
            raise SetupError(f"{path} is damaged ({error}): run playbooks/provision.yml again.") from None
    return total


def cache_bytes_per_token(snapshot: Path, dtype: str) -> int:
    """Return what keys and values of one token take in all layers, from the model's config.json."""
    try:
        config = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        kept_heads = config.get("num_key_value_heads") or heads
        return int(2 * config["num_hidden_layers"] * kept_heads * head_size * BYTES_PER_PARAMETER[dtype])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise SetupError(
            f"{snapshot / 'config.json'} does not describe a model: {type(error).__name__}: {error}."
        ) from None


def load_model(settings: Settings, cache_tokens: int = 0) -> LoadedModel:
    """Load the model onto one device: the first visible GPU, or the CPU.

    `cache_tokens` is what a KV cache beside it has to hold: what cannot fit is refused before anything is loaded.
    Raises SetupError where it is not there, does not fit, or is not an instruct model.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is measured is what was provisioned, never a fresh download
    snapshot = find_snapshot(settings)
    parameters = count_parameters(snapshot)
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise SetupError(f"A package is missing ({error}): run playbooks/provision.yml.") from None
    logging.disable_progress_bar()
    device = "cuda:0" if settings.benchmark_device == "cuda" else "cpu"
    if device != "cpu":
        weights = parameters * BYTES_PER_PARAMETER[settings.benchmark_dtype]
        cache = cache_tokens * cache_bytes_per_token(snapshot, settings.benchmark_dtype) if cache_tokens else 0
        _check_memory(weights, cache, settings.benchmark_dtype)
    started = time.monotonic()
    try:
        tokenizer = AutoTokenizer.from_pretrained(snapshot, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            snapshot,
            dtype=getattr(torch, settings.benchmark_dtype),
            device_map={"": device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, torch.OutOfMemoryError) as error:
        raise SetupError(f"The model in {snapshot} cannot be loaded: {type(error).__name__}: {error}") from error
    if not tokenizer.chat_template:
        raise SetupError(f"The model in {snapshot} has no chat template: an instruct model is needed.")
    model.eval()
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if devices != [device]:
        raise SetupError(f"The model was to lie on {device} and lies on {', '.join(devices)}: it does not fit.")
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        details={
            "architecture": type(model).__name__,
            "parameters": parameters,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": device,
            "attention": model.config._attn_implementation,
            "commit": None if is_directory_path(settings.benchmark_model) else snapshot.name,
            "trust_remote_code": False,
            "load_s": round(time.monotonic() - started, 3),
        },
    )


def _check_memory(weights: int, cache: int, dtype: str) -> None:
    import torch

    free, total = torch.cuda.mem_get_info(0)
    needed = weights + cache + HEADROOM_BYTES
    if needed > free:
        beside = f" and {cache / 1e9:.1f} GB of KV cache" if cache else ""
        raise SetupError(
            f"The model needs {needed / 1e9:.1f} GB ({weights / 1e9:.1f} GB of weights in {dtype}{beside} among them) "
            f"and the GPU has {free / 1e9:.1f} GB free of {total / 1e9:.1f}: end what else uses it (nvidia-smi), or "
            f"take a smaller model{' or cache' if cache else ''}."
        )
