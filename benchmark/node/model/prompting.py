"""From a prompt to the token ids that a model is given: one way for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.interfaces import Demands, Prompt
from benchmark.words import brief, sentences

# Chat templates print a date: the same prompt must have the same tokens tomorrow. Llama's takes it as an argument,
# gpt-oss's asks for the time.
TEMPLATE_DATE = "26 Jul 2024"
CLOCK = "strftime_now"
# What templates ask it for.
TIME_WORDS = (*("-d", "-m"), *"AaBbdeFHIjMmpSTYy")

# What `require_room` says of a model that has so many.
POSITIONS = "the model's positions are"


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the prompt's token ids: its own, or those of its text within the model's chat template."""
    if prompt.token_ids is not None:
        return list(prompt.token_ids)
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}],
        chat_template=_timeless(tokenizer.get_chat_template()),
        add_generation_prompt=True,
        return_dict=True,
        date_string=TEMPLATE_DATE,
    )
    token_ids: list[int] = encoded["input_ids"]
    return token_ids


def _timeless(template: str) -> str:
    """Return a chat template whose function for the time, transformers' own, tells TEMPLATE_DATE's midnight.

    A function cannot be handed to a template, so a macro takes its name. What follows `endmacro` keeps a newline.
    """
    if CLOCK not in template:
        return template
    midnight = datetime.strptime(TEMPLATE_DATE, "%d %b %Y")
    said = "".join(f"|replace('%{one}','{midnight.strftime(f'%{one}')}')" for one in TIME_WORDS)
    return f"{{%- macro {CLOCK}(words) %}}{{{{ words{said} }}}}{{%- endmacro %}}{{{{ '' }}}}{template}"


def require_template(tokenizer: Any, snapshot: Path) -> None:
    """Raise SetupError where the model has no chat template that makes a prompt of a text."""
    if not tokenizer.chat_template:
        raise SetupError(f"The model in {snapshot} has no chat template: an instruct model is needed.")
    try:
        one, other = (encode(tokenizer, Prompt("a question", text)) for text in ("What is a prompt?", "Who asks?"))
    except Exception as error:  # whatever a template raises by itself
        raise SetupError(
            f"The chat template of the model in {snapshot} makes no prompt of a text: {type(error).__name__}: "
            f"{sentences(brief(str(error)))} Mend chat_template.jinja there, or take another model."
        ) from None
    if one == other:
        raise SetupError(
            f"The chat template of the model in {snapshot} leaves out what is asked: it makes the same prompt of two "
            "texts (some take a text only as a part among images). Mend chat_template.jinja there, or take another "
            "model."
        )


def require_vocabulary(text_config: Any, demands: Demands) -> None:
    """Raise InputError where the dataset's prompts have token ids that the model has not.

    Such an id would break the GPU's context, and all queries after it.
    """
    if demands.highest_id >= text_config.vocab_size:
        raise InputError(
            f"The dataset's prompts have token ids up to {demands.highest_id}, and the model has "
            f"{text_config.vocab_size}: they were made with another model's tokenizer."
        )


def require_room(tokens: int | None, demands: Demands, most: int, what: str) -> None:
    """Raise InputError where the longest prompt and an answer of `most` tokens do not fit; None: no limit is known."""
    if tokens is not None and demands.longest + most > tokens:
        raise InputError(
            f"The dataset's longest prompt and its answer take {demands.longest + most} tokens, and {what} {tokens}: "
            "take shorter prompts, or another model."
        )


def check_prompt(token_ids: Sequence[int], text_config: Any, most: int, cache_tokens: int | None = None) -> None:
    """Raise RunError for a query that could never be scheduled, or would break the device for all others.

    `most`: tokens of its answer; `cache_tokens`: what a cache of a fixed size holds, None: it has none.
    """
    total = len(token_ids) + most
    if not token_ids:
        raise RunError("The prompt has no tokens.")
    if not 0 <= min(token_ids) <= max(token_ids) < text_config.vocab_size:
        raise RunError(f"The prompt has token ids outside the model's {text_config.vocab_size}.")
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is not None and total > positions:
        raise RunError(f"The prompt and its answer take {total} tokens; the model has {positions} positions.")
    if cache_tokens is not None and total > cache_tokens:
        raise RunError(f"The prompt and its answer take {total} tokens; the KV cache holds {cache_tokens}.")
