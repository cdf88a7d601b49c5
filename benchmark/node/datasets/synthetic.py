"""Prompts of given lengths, made of random tokens: what an engine does with them depends on their length alone.

The token ids are drawn uniformly from the model's ordinary vocabulary, prompt after prompt, with Python's Mersenne
Twister (`random.Random(seed).random()`, whose sequence Python guarantees to stay): the same options and the same model
give the same prompts everywhere. How long the answers are is the profile's `generation`. The prompts have no text: an
engine that cannot be given token ids cannot answer them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from benchmark.dataset_options import SyntheticOptions
from benchmark.errors import SetupError
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings, canonical_sha256


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the prompts. Raises InputError for wrong options, SetupError where the model is not there."""
    chosen = check(SyntheticOptions, options, "The dataset synthetic")
    vocabulary = ordinary_tokens(find_snapshot(settings))
    draw = random.Random(chosen.seed).random  # noqa: S311 # reproducible is the point
    least, most = chosen.bounds
    made = []
    for _ in range(chosen.prompts):
        length = least + int(draw() * (most - least + 1))
        made.append(tuple(vocabulary[int(draw() * len(vocabulary))] for _ in range(length)))
    prompts = tuple(Prompt(id=f"synthetic-{n:05}", text="", token_ids=ids) for n, ids in enumerate(made))
    return Dataset(name="synthetic", prompts=prompts, sha256=canonical_sha256(made))


def ordinary_tokens(snapshot: Path) -> list[int]:
    """Return the token ids that stand for text, ascending: without special tokens and the vocabulary's padding.

    From the model's configuration and its tokenizer's files; raises SetupError where these do not say.
    """
    config = _read(snapshot / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise SetupError(f"{snapshot / 'config.json'} states no vocab_size.")
    tokenizer = _read(snapshot / "tokenizer.json")
    added = {token["id"] for token in tokenizer.get("added_tokens") or []}
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    # A dictionary of tokens (BPE, WordPiece), or a list of them in the order of their ids (Unigram).
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    ordinary = sorted(token_id for token_id in set(ids) - added if token_id < size)
    if not ordinary:
        raise SetupError(f"{snapshot / 'tokenizer.json'} holds no vocabulary.")
    return ordinary


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; the dataset synthetic needs it.") from None
    except ValueError:
        raise SetupError(f"{path} is damaged: it is not JSON.") from None
    if not isinstance(content, dict):
        raise SetupError(f"{path} is damaged: it is not a JSON object.")
    return content
