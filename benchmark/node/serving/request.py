"""What a query looks like on the wire: the body of a POST to /v1/completions or /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from benchmark.node.interfaces import Prompt, Query
from benchmark.node.prompting import TEMPLATE_DATE
from benchmark.profiles import Generation

Api = Literal["completions", "chat"]

ROUTES: dict[Api, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

# Fields that not every server takes: vLLM and SGLang have them beside OpenAI's own, others answer 400 or 422. The last
# two are OpenAI's, and newer than some servers.
OPTIONAL = (
    "return_token_ids",
    "min_tokens",
    "ignore_eos",
    "top_k",
    "repetition_penalty",
    "chat_template_kwargs",
    "seed",
    "stream_options",
)

# A few tokens that every vocabulary has, and a message: enough to see which fields a server takes.
PROBE = Query(index=0, prompt=Prompt(id="probe", text="Hello", token_ids=(1, 2, 3)), seed=0)
PROBE_TOKENS = 2


def body(
    api: Api, model: str, query: Query, generation: Generation, refused: Collection[str] = (), most: int | None = None
) -> dict[str, Any]:
    """Return the JSON body. `most` shortens the answer of a probe, `refused` names fields to leave out.

    Everything that decides how tokens are chosen is explicit: what is left out would come from the server's defaults,
    which vLLM takes from the model's own generation_config.json.
    """
    length = generation.max_new_tokens if most is None else min(most, generation.max_new_tokens)
    shortest = min(generation.min_new_tokens, length)
    fields: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": length,
        "temperature": 0.0 if query.greedy else generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k or -1,  # -1: off, for vLLM and SGLang alike
        "repetition_penalty": 1.0,
        "seed": query.seed,
        "return_token_ids": True,
    }
    if shortest:
        fields["min_tokens"] = shortest
    if generation.min_new_tokens == generation.max_new_tokens:
        fields["ignore_eos"] = True
    if api == "chat":
        fields["messages"] = [{"role": "user", "content": query.prompt.text}]
        fields["chat_template_kwargs"] = {"date_string": TEMPLATE_DATE}
    else:
        fields["prompt"] = list(query.prompt.token_ids or ())
    return {name: value for name, value in fields.items() if name not in refused}
