"""Twenty curated prompts of varied tasks: explain, summarise, reason, code, translate, list, ..."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.options import check_none
from benchmark.settings import Settings


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the prompts in the file's order."""
    check_none(options, "The curated dataset")
    return Dataset(name="curated", prompts=prompts(), sha256=hashlib.sha256(_text()).hexdigest())


def prompts() -> tuple[Prompt, ...]:
    """Return the twenty prompts."""
    return tuple(Prompt(id=entry["id"], text=entry["text"]) for entry in yaml.safe_load(_text()))


def _text() -> bytes:
    return Path(__file__).with_suffix(".yaml").read_bytes()
