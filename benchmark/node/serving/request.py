"""The form of a query on the wire: the body of a POST to /v1/completions or /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from benchmark.node.interfaces import Prompt, Query
from benchmark.node.model.prompting import TEMPLATE_DATE
from benchmark.profiles import Generation

Api = Literal["completions", "chat"]

ROUTES: dict[Api, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

# Fields that not every server accepts, each with what omitting it means for the numbers. Fields that decide how tokens
# are chosen may be omitted only if the profile asks for what the server does anyway (`undroppable`). They are tried one
# by one in this order, most important first, so that of two that exclude each other the more important one stays.
OPTIONAL = {
    "stream_options": "no usage is sent: tokens are counted from ids",
    "return_token_ids": "no ids are sent: tokens are counted from usage",
    "temperature": "only where the profile asks for 1, which is then the server's fixed one",
    "top_p": "only where the profile asks for 1 (off), or for no sampling",
    "top_k": "only where the profile asks for 0 (off), or for no sampling",
    "min_p": "it is sent as 0 (off); a server without it has none",
    "repetition_penalty": "it is sent as 1 (off); a server without it has none",
    "seed": "tokens are drawn by another seed: two runs give other answers",
    "ignore_eos": "answers may be shorter than the profile asks for; their length is checked",
    "min_tokens": "answers may be shorter than the profile asks for; their length is checked",
    "chat_template_kwargs": "the date in the chat template is the server's",
}
# Never omitted: sent under its newer name if a server refuses the older one (OpenAI's newer chat models).
LENGTH, NEWER_LENGTH = "max_tokens", "max_completion_tokens"
# OpenAI's fixed temperature, for models that accept no other.
FIXED_TEMPERATURE = 1.0

# A few tokens that every vocabulary has, and a message: enough to find out which fields a server accepts.
PROBE = Query(index=0, prompt=Prompt(id="probe", text="Hello", token_ids=(1, 2, 3)), seed=0)
PROBE_TOKENS = 2


def body(
    api: Api, model: str, query: Query, generation: Generation, refused: Collection[str] = (), most: int | None = None
) -> dict[str, Any]:
    """Return the JSON body. `most` shortens the answer of a probe, `refused` names fields to omit.

    If `max_tokens` is refused, `max_completion_tokens` is sent instead.

    Everything that decides how tokens are chosen is explicit: the server would fill in its own defaults, which vLLM
    reads from the model's generation_config.json, and some of which llama.cpp does not switch off.
    """
    least, longest = query.bounds(generation)
    length = longest if most is None else min(most, longest)
    shortest = min(least, length)
    fields: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        NEWER_LENGTH if LENGTH in refused else LENGTH: length,
        "temperature": 0.0 if query.greedy else generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k or -1,  # -1: off, for vLLM and SGLang alike
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": query.seed,
        "return_token_ids": True,
    }
    if shortest:
        fields["min_tokens"] = shortest
    if least == longest:
        fields["ignore_eos"] = True
    if api == "chat":
        fields["messages"] = [{"role": "user", "content": query.prompt.text}]
        fields["chat_template_kwargs"] = {"date_string": TEMPLATE_DATE}
    else:
        fields["prompt"] = list(query.prompt.token_ids or ())
    return {name: value for name, value in fields.items() if name not in refused}


def api_for(asked: Literal["auto", "completions", "chat"], has_ids: bool) -> Api:
    """Return the route for a prompt with or without token ids; `asked` is `benchmark_endpoint_api`."""
    if asked == "auto":
        return "completions" if has_ids else "chat"
    return asked


def undroppable(refused: Collection[str], generation: Generation) -> str | None:
    """Return which of the refused fields the profile needs, as "top_k = 5"; None: it needs none of them."""
    if "temperature" in refused and generation.temperature != FIXED_TEMPERATURE:
        return f"temperature = {generation.temperature:g}"
    if generation.temperature:
        if "top_p" in refused and generation.top_p != 1:
            return f"top_p = {generation.top_p:g}"
        if "top_k" in refused and generation.top_k:
            return f"top_k = {generation.top_k}"
    return None
