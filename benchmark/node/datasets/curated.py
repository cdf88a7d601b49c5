"""Twenty curated prompts of varied tasks: explain, summarise, reason, code, translate, list, ..."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from benchmark.node.interfaces import Dataset, Prompt


def load() -> Dataset:
    """Return the prompts in the file's order."""
    text = Path(__file__).with_suffix(".yaml").read_bytes()
    prompts = tuple(Prompt(id=entry["id"], text=entry["text"]) for entry in yaml.safe_load(text))
    return Dataset(name="curated", prompts=prompts, sha256=hashlib.sha256(text).hexdigest())
