"""Load tokenizer and model with transformers: pinned revision, safetensors only, no remote code, nothing offloaded."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from benchmark.errors import SetupError
from benchmark.importing import importing, not_loading
from benchmark.node.continuous.memory_plan import free_bytes
from benchmark.node.hub.files import ALLOW_PATTERNS, IGNORE_PATTERNS
from benchmark.node.model import weights
from benchmark.node.model.architecture import model_class, read_config
from benchmark.node.model.architecture import name as architecture_name
from benchmark.node.model.files import REMEDY, check_files
from benchmark.node.model.part import own_part, read_part
from benchmark.node.model.prompting import require_template
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.node.startup import Stages
from benchmark.provisioned import FROM_SERVERS
from benchmark.served import QUANTIZATION
from benchmark.settings import Settings
from benchmark.settings.measurement import is_directory_path
from benchmark.words import brief, sentences

BYTES_PER_PARAMETER = {"float16": 2, "bfloat16": 2, "float32": 4}
# Room for activations, the CUDA context, and a KV cache of unknown size.
HEADROOM_BYTES = 2 * 2**30


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate, its tokenizer, and how it was actually loaded."""

    model: Any
    tokenizer: Any
    details: dict[str, JsonValue]


def find_snapshot(settings: Settings) -> Path:
    """Return the directory of the weights, without network access.

    Raises SetupError if it does not exist.
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
            # The listing may cover the whole repository: only these files are needed.
            allow_patterns=ALLOW_PATTERNS,
            ignore_patterns=IGNORE_PATTERNS,
        )
    except LocalEntryNotFoundError:
        raise SetupError(
            f"{settings.benchmark_model} at revision {settings.benchmark_model_revision} is not in {cache}: "
            "run playbooks/provision.yml, or python3 -m benchmark fetch-model."
        ) from None
    return Path(snapshot)


def load_model(settings: Settings, readers: int | None = None, parts: int = 1, texts: bool = True) -> LoadedModel:
    """Load the model onto one device: the first visible GPU, or the CPU.

    `readers`: number of threads that read the weights; 0: transformers maps the files; None: whichever is faster on the
    device. `parts`: number of processes over which the model is split; this process loads its own part, see
    `benchmark/node/spread.py`. `texts`: whether some prompts are text.

    Raises SetupError if the model is missing or does not fit, needs a missing package, or has no chat template that can
    make a prompt from a text.
    """
    stages = Stages()
    os.environ["HF_HUB_OFFLINE"] = "1"  # measure what was provisioned, never a fresh download
    snapshot = find_snapshot(settings)
    parameters = check_files(snapshot)
    try:
        with stages.stage("imports"), importing():
            import torch
            from transformers import (
                GenerationConfig,
                modeling_utils,  # noqa: F401 # otherwise imported with the tokenizer, outside its stage
            )
            from transformers.utils import logging
    except ImportError as error:
        raise SetupError(
            not_loading(error) or f"A package is missing ({error}): run playbooks/provision.yml."
        ) from None
    logging.disable_progress_bar()
    part = own_part(parts)
    device = f"cuda:{part}" if settings.benchmark_device == "cuda" else "cpu"
    if device != "cpu":
        with stages.stage("device"):
            torch.cuda.set_device(part)
            weights_bytes = parameters * BYTES_PER_PARAMETER[settings.benchmark_dtype] // parts
            _check_memory(weights_bytes, settings.benchmark_dtype, part)
    started = time.monotonic()
    kind = _kind_of(snapshot)
    with stages.stage("tokenizer"):
        tokenizer = load_tokenizer(snapshot)
        if texts:
            require_template(tokenizer, snapshot)
    try:
        dtype = getattr(torch, settings.benchmark_dtype)
        if parts > 1:
            model, found = read_part(kind, snapshot, dtype, device, parts, stages)
            _require_all(snapshot, found)
        else:
            model = _read(kind, snapshot, dtype, device, readers, stages)
    # RuntimeError: torch's own, including full memory; the last two: for unknown values in the files.
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        reported = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SetupError(f"The model in {snapshot} cannot be loaded: {reported}") from error
    except ImportError as error:  # usually for quantized weights
        raise SetupError(
            f"The model in {snapshot} needs a package that is not installed: {sentences(brief(str(error)))} Use "
            f"{FROM_SERVERS}, or weights that do not need it."
        ) from error
    model.eval()
    # Only the end tokens of its file count: `generate` would use its values for everything that is not set.
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if devices != [device]:
        raise SetupError(f"The model should be on {device} but is on {', '.join(devices)}: it does not fit.")
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        details={
            "architecture": type(model).__name__,
            "parameters": parameters,
            "parameters_per_token": parameters_per_token(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": device,
            "attention": model.config._attn_implementation,
            "commit": None if is_directory_path(settings.benchmark_model) else snapshot.name,
            "trust_remote_code": False,
            **({"tensor_parallel": parts} if parts > 1 else {}),
            **({QUANTIZATION: quantized} if (quantized := _quantization(model)) else {}),
            "load_s": round(time.monotonic() - started, 3),
            "startup_s": dict(stages.seconds),
        },
    )


def parameters_per_token(model: Any) -> int | None:
    """Return the number of parameters read per token in a step. None: it depends on the token.

    Of tables such as the embedding a token reads only a row, unless the table is also the output matrix. In a mixture
    of experts a token chooses which weights are read; parts other than the text's (vision) are not used at every step.
    """
    config = model.config
    text = config.get_text_config()
    if text is not config or has_experts(text.to_dict()):
        return None
    output = model.get_output_embeddings()
    tables = {
        id(module.weight): module.weight.numel()
        for module in model.modules()
        if type(module).__name__.endswith("Embedding") and hasattr(module, "weight")
        if output is None or module.weight is not output.weight
    }
    every: int = sum(parameter.numel() for parameter in model.parameters())
    picked: int = sum(tables.values())
    return every - picked


def has_experts(config: dict[str, Any]) -> bool:
    """Return whether a configuration, or a part of it, has experts that a token chooses from."""
    return any(
        has_experts(value) if isinstance(value, dict) else isinstance(value, int) and value > 0 and "expert" in name
        for name, value in config.items()
    )


def _read(kind: Any, snapshot: Path, dtype: Any, device: str, readers: int | None, stages: Stages) -> Any:
    """Return the model with its weights on the device; it is created without memory of its own."""

    def load() -> Any:
        model, found = kind.from_pretrained(
            snapshot,
            dtype=dtype,
            device_map={"": device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are reported below, by name
            output_loading_info=True,
        )
        _require_all(snapshot, found)
        return model

    if readers is None:
        readers = 0 if device == "cpu" else weights.READERS
    if readers == 0:
        with stages.stage("weights"):
            return load()
    began = time.monotonic()
    with weights.reading(device, readers) as reader:
        model = load()
    disk_s, transfer_s = reader.seconds()
    stages.add("weights_from_disk", disk_s)
    stages.add("device_transfer", transfer_s)
    stages.add("model", time.monotonic() - began - disk_s - transfer_s)
    return model


def _kind_of(snapshot: Path) -> Any:
    """Return transformers' class for the model. Raises SetupError if the model does not continue its prompt."""
    config = read_config(snapshot)
    if config.is_encoder_decoder:
        raise SetupError(
            f"The model in {snapshot} ({architecture_name(config)}) has an encoder; sequential and continuous need a "
            f"model that continues its prompt: use {FROM_SERVERS}."
        )
    return model_class(config)


def _require_all(snapshot: Path, found: Mapping[str, Any]) -> None:
    """Raise SetupError if weights are missing or have another shape: transformers would initialise them randomly."""
    unfit = {
        "are missing": sorted(found["missing_keys"]),
        "have a different shape from config.json": sorted(name for name, *_ in found["mismatched_keys"]),
    }
    for how, names in unfit.items():
        if names:
            raise SetupError(
                f"The weights in {snapshot} do not fit its config.json: {len(names)} {how} ({names[0]}). {REMEDY}"
            )


def _quantization(model: Any) -> str:
    """Return the quantization of the weights on the device; empty: none, or they were dequantized while loading."""
    if not getattr(model, "is_quantized", False):
        return ""
    method = getattr(model, "quantization_method", "in an unknown way")
    return str(getattr(method, "value", method))


def _check_memory(weights: int, dtype: str, device: int = 0) -> None:
    import torch

    free, total = free_bytes(device), torch.cuda.mem_get_info(device)[1]
    needed = weights + HEADROOM_BYTES
    if needed > free:
        raise SetupError(
            f"The model needs {needed / 1e9:.1f} GB ({weights / 1e9:.1f} GB of weights in {dtype} among them) and the "
            f"GPU has {free / 1e9:.1f} GB free of {total / 1e9:.1f}: end whatever else uses it (nvidia-smi), or use a "
            "smaller model."
        )
