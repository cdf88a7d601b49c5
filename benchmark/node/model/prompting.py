"""From a prompt to the token ids that a model is given: one way for every engine."""

from __future__ import annotations

from typing import Any

from benchmark.node.interfaces import Prompt

# Llama's chat template prints a date: the same prompt must have the same tokens tomorrow.
TEMPLATE_DATE = "26 Jul 2024"


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the prompt's token ids: its own, or those of its text within the model's chat template."""
    if prompt.token_ids is not None:
        return list(prompt.token_ids)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}],
        add_generation_prompt=True,
        return_dict=True,
        date_string=TEMPLATE_DATE,
    )
    token_ids: list[int] = encoded["input_ids"]
    return token_ids
