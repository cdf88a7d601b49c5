"""What a server reports about itself: its version, and the precision, revision and quantization of its model.

There is no standard route for this: each known route is tried once, for at most ASK_S, and any answer is tolerated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json

from benchmark.node.serving.client import Client, Target
from benchmark.node.serving.models import Listed
from benchmark.node.serving.reply import ReplyError
from benchmark.served import NOT_REPORTED, commit_of

ASK_S = 2.0
MOST = 200
"""Longest value, in characters: the rest is cut off."""

_SGLANG: dict[str, tuple[str, ...]] = {
    "version": ("version",),
    "dtype": ("dtype",),
    "revision": ("revision",),
    "quantization": ("quantization",),
    "root": ("model_path",),
    "max_model_len": ("context_length",),
}
# Route -> fact -> its possible keys in the answer. vLLM; Ollama; SGLang (older and newer route); Text Generation
# Inference; llama.cpp. Nothing else in an answer is read: SGLang's holds its key.
ROUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "/version": {"version": ("version",)},
    "/api/version": {"version": ("version",)},
    "/get_server_info": _SGLANG,
    "/server_info": _SGLANG,
    "/info": {
        "version": ("version",),
        "dtype": ("model_dtype", "dtype"),
        "revision": ("model_sha",),
        "quantization": ("quantize", "quantization"),
        "root": ("model_id",),
        "max_model_len": ("max_total_tokens",),
    },
    "/props": {"version": ("build_info",), "root": ("model_path",)},
}
# Values that leave the choice to the server, so they do not say what it does.
UNDECIDED = ("", "auto", "none", "null", "default", "unknown", "n/a")
DTYPES = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}


async def ask(client: Client, target: Target, entry: Listed | None) -> dict[str, str]:
    """Return the facts that a server reports, by their names in ROUTES; others are absent. Never raises ReplyError."""
    answers = await asyncio.gather(*(_ask(client, target, route) for route in ROUTES))
    facts: dict[str, str] = {}
    if entry is not None:
        facts |= {"root": entry.root} if entry.root else {}
        facts |= {"max_model_len": str(entry.max_model_len)} if entry.max_model_len else {}
    for route, answer in zip(ROUTES, answers, strict=True):
        for fact, names in ROUTES[route].items():
            if fact not in facts and (value := _first(answer, names)):
                facts[fact] = value
    if "dtype" in facts:
        word = facts["dtype"].lower().removeprefix("torch.")
        facts["dtype"] = DTYPES.get(word, word)
    if "revision" not in facts and (commit := commit_of(facts.get("root", ""))):
        facts["revision"] = commit
    return {name: value[:MOST] for name, value in facts.items()}


def together(each: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the facts that several servers report: their different values, and NOT_REPORTED if one is missing."""
    names = dict.fromkeys(name for facts in each for name in facts)
    return {name: ", ".join(dict.fromkeys(facts.get(name, NOT_REPORTED) for facts in each))[:1000] for name in names}


async def _ask(client: Client, target: Target, route: str) -> dict[str, Any]:
    try:
        answer = from_json(await asyncio.wait_for(client.get(target, route), ASK_S))
    except (ReplyError, ValueError, asyncio.TimeoutError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _first(answer: dict[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        value = answer.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            word = " ".join(str(value).split())
            if word.lower() not in UNDECIDED:
                return word
    return None
