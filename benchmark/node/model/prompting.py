"""Convert a prompt to the token ids that a model gets: the same way for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.interfaces import Demands, Prompt
from benchmark.words import brief, sentences

# Chat templates may print the date, but a prompt must always have the same tokens. Llama's takes the date as an
# argument, gpt-oss's calls a function for it.
TEMPLATE_DATE = "26 Jul 2024"
CLOCK = "strftime_now"
# The formats that templates call it with.
TIME_WORDS = (*("-d", "-m"), *"AaBbdeFHIjMmpSTYy")

# The limit of a model's positions, in `require_room`.
POSITIONS = "the model's limit is"


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the prompt's token ids: its own, or those of its text formatted with the model's chat template."""
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
    """Return a chat template whose function for the time, transformers' own, returns TEMPLATE_DATE at midnight.

    A template cannot be given a function, so a macro takes its name. What follows `endmacro` keeps a newline.
    """
    if CLOCK not in template:
        return template
    midnight = datetime.strptime(TEMPLATE_DATE, "%d %b %Y")
    said = "".join(f"|replace('%{one}','{midnight.strftime(f'%{one}')}')" for one in TIME_WORDS)
    return f"{{%- macro {CLOCK}(words) %}}{{{{ words{said} }}}}{{%- endmacro %}}{{{{ '' }}}}{template}"


def require_template(tokenizer: Any, snapshot: Path) -> None:
    """Raise SetupError if the model has no chat template that can make a prompt from a text."""
    if not tokenizer.chat_template:
        raise SetupError(f"The model in {snapshot} has no chat template: an instruct model is needed.")
    try:
        one, other = (encode(tokenizer, Prompt("a question", text)) for text in ("What is a prompt?", "Who asks?"))
    except Exception as error:  # anything that a template raises
        raise SetupError(
            f"The chat template of the model in {snapshot} cannot make a prompt from a text: {type(error).__name__}: "
            f"{sentences(brief(str(error)))} Correct chat_template.jinja there, or use another model."
        ) from None
    if one == other:
        raise SetupError(
            f"The chat template of the model in {snapshot} ignores the text: it makes the same prompt from two texts "
            "(some take a text only as a part among images). Correct chat_template.jinja there, or use another model."
        )


def require_vocabulary(text_config: Any, demands: Demands) -> None:
    """Raise InputError if the dataset's prompts have token ids that the model does not have.

    Such an id would break the GPU's context, and all queries after it.
    """
    if demands.highest_id >= text_config.vocab_size:
        raise InputError(
            f"The dataset's prompts have token ids up to {demands.highest_id}, but the model has "
            f"{text_config.vocab_size}: they were made with another model's tokenizer."
        )


def require_room(tokens: int | None, demands: Demands, most: int, what: str) -> None:
    """Raise InputError if the longest prompt and an answer of `most` tokens do not fit; None: no known limit."""
    if tokens is not None and demands.longest + most > tokens:
        raise InputError(
            f"The dataset's longest prompt and its answer take {demands.longest + most} tokens, but {what} {tokens}: "
            "use shorter prompts, or another model."
        )


def check_prompt(token_ids: Sequence[int], text_config: Any, most: int, cache_tokens: int | None = None) -> None:
    """Raise RunError for a query that could never be scheduled, or would break the device for all others.

    `most`: tokens of its answer; `cache_tokens`: the capacity of a fixed-size cache, None: there is none.
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
