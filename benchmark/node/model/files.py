"""Check a model's files before anything expensive is imported, so that errors name the damaged file."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import SetupError

REMEDY = (
    "Provision it again (hf_cache_source hub or controller replaces damaged files in the cache), or copy your own "
    "directory again."
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Nothing loads without the first; transformers reads the others if they exist, and silently ignores one that it cannot
# read.
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "tekken.json")
JSON_FILES = (CONFIG, GENERATION, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", INDEX)


def check_files(snapshot: Path) -> int:
    """Return the number of parameters of the model in a directory.

    Reads the small files and the headers of the weights. Raises SetupError, naming the file and the remedy, if one is
    missing, truncated or invalid.
    """
    for path in sorted(snapshot.iterdir()):
        if path.is_symlink() and not path.exists():
            raise _missing(path)
    reported = {name: _read_json(snapshot / name) for name in JSON_FILES if (snapshot / name).exists()}
    if CONFIG not in reported:
        raise _missing(snapshot / CONFIG)
    if not isinstance(reported[CONFIG].get("model_type"), str):
        raise _damaged(snapshot / CONFIG, "it has no model_type")
    if not any(any(snapshot.glob(pattern)) for pattern in TOKENIZERS):
        raise _missing(snapshot / TOKENIZERS[0])
    if not _are_tokens(reported.get(GENERATION, {}).get("eos_token_id")):
        raise _damaged(snapshot / GENERATION, "its eos_token_id is neither a token nor a list of tokens")
    shards = sorted(set(_shards(reported[INDEX], snapshot / INDEX))) if INDEX in reported else []
    for shard in shards:
        if not (snapshot / shard).is_file():
            raise _missing(snapshot / shard)
    # As transformers chooses. The same weights may also be there under other names (Mistral's
    # consolidated.safetensors).
    if (snapshot / WEIGHTS).is_file() or not shards:
        shards = [WEIGHTS]
    return _count_parameters([snapshot / shard for shard in shards])


def _count_parameters(files: list[Path]) -> int:
    """Return the number of parameters in safetensors files, from their headers only."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in files:
        if not path.is_file():
            raise SetupError(
                f"{path.parent} holds no {path.name}; other formats are not loaded: convert them (transformers' "
                "save_pretrained writes it), or use a model that has it."
            )
        try:
            with safe_open(path, framework="numpy") as tensors:
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 # not a dict
        except (SafetensorError, OSError) as error:
            if "Cannot allocate memory" in str(error):  # raised for a file too large to be mapped
                raise MemoryError(f"Cannot allocate memory for {path}") from None
            raise _damaged(path, str(error)) from None
    return total


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(path, "it is not a JSON object")
    return content


def _are_tokens(value: Any) -> bool:
    return value is None or all(type(one) is int for one in (value if isinstance(value, list) else [value]))


def _shards(index: dict[str, Any], path: Path) -> list[str]:
    names = index.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise _damaged(path, "it has no weight_map")
    return list(names.values())


def _missing(path: Path) -> SetupError:
    return SetupError(f"{path} is missing. {REMEDY}")


def _damaged(path: Path, how: str) -> SetupError:
    if path.is_symlink():
        # If a blob's time has changed since it was verified, its content is verified again.
        with suppress(OSError):
            os.utime(path)
    return SetupError(f"{path} is damaged ({' '.join(how.split())}). {REMEDY}")
