"""A model's tokenizer, without its weights: for preparing prompts and decoding answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import SetupError
from benchmark.node.model.files import REMEDY
from benchmark.words import brief, sentences


def load_tokenizer(model: Path) -> Any:
    """Return the tokenizer in a model's directory. Raises SetupError if it cannot be loaded."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # use what was provisioned
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise SetupError(f"A package is missing ({error}): run playbooks/provision.yml.") from None
    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # for a damaged tokenizer.json the library raises nothing more specific
        reported = f"{type(error).__name__}: {sentences(brief(str(error)))}"
        raise SetupError(f"The tokenizer in {model} cannot be loaded: {reported} {REMEDY}") from None


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Return the text of an answer without special tokens, as MLPerf's evaluation decodes it.

    Its transformers (4.46) removes the space before punctuation if the tokenizer's configuration says so, as Llama
    3.1's does; transformers 5 no longer does so for BPE tokenizers. The targets were measured that way.
    """
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(tokenizer.clean_up_tokenization(text)) if tokenizer.clean_up_tokenization_spaces else text
