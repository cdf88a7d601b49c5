"""Compare a fresh engine's answers with the plain model's, before anything is measured.

A captured CUDA graph that is stale answers at full speed, but wrongly. So the check sends queries such that every
number of requests that has a graph occurs twice (there are two sets of graphs), and a last query while the others are
already answering. Every token of the longest-lived queries must be the plain model's choice, or close to it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from benchmark.errors import SetupError
from benchmark.node.continuous.router import Flight, Router, Waiting
from benchmark.node.interfaces import Prompt, Query

# How far below the largest logit the chosen token's may be, in standard deviations of the logits. A token unrelated to
# the prompt is three or more below. Half precision also routes to other experts: the plain model with and without its
# own cache then differed by up to 1.6 (PhiMoE, random weights).
EXACT_TOLERANCE = 0.01
HALF_TOLERANCE = 1.0
EXPERTS_TOLERANCE = 2.0
# How many answers are checked, besides the last one.
CHECKED = 8
# The last query's prompt: more than one page of most caches.
LATE_TOKENS = 300


@dataclass(frozen=True)
class Probe:
    """A query for the check."""

    token_ids: tuple[int, ...]
    output_tokens: int


def probes(requests: int, vocabulary: int, late_tokens: int = LATE_TOKENS) -> list[Probe]:
    """Return that many queries and a late one.

    The first lives longest, and half of those in flight end every two steps.
    """
    draw = random.Random(requests)  # noqa: S311 # not secret

    def prompt(tokens: int) -> tuple[int, ...]:
        return tuple(draw.choices(range(vocabulary), k=tokens))

    short = [
        Probe(prompt(5 + number % 7), 2 * (requests // (number + 1)).bit_length() + 2) for number in range(requests)
    ]
    return [*short, Probe(prompt(late_tokens), 4)]


def ask(manager: Any, router: Router, asked: Sequence[Probe], words: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Submit all queries, the last one when the others are already answering, and wait for the full answers.

    `words`: more arguments for the manager's `add_request`, for every query.
    """
    waiting = Waiting(len(asked))
    for number, probe in enumerate(asked):
        if number == len(asked) - 1:
            waiting.first.wait()
        request_id = f"check-{number}"
        query = Query(number, Prompt(request_id, "", probe.token_ids), 0)
        router.add(request_id, Flight(query, waiting, len(probe.token_ids)))
        length = {"max_new_tokens": probe.output_tokens, "eos_token_id": -1}
        manager.add_request(list(probe.token_ids), request_id, streaming=True, **length, **words)
    return waiting.answers()


def shortfalls(model: Any, asked: Sequence[Probe], answers: Sequence[Sequence[int]]) -> list[float]:
    """Return, for each token of the answers, how much the plain model prefers another one.

    In standard deviations of that token's logits; 0: the token is the model's own choice.
    """
    import torch

    found: list[float] = []
    for probe, answer in zip(asked, answers, strict=True):
        inputs = torch.tensor([[*probe.token_ids, *answer]], device=model.device)
        with torch.inference_mode():
            # Some families return the logits of all tokens, whatever is requested.
            logits = model(inputs, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, -len(answer) - 1 : -1]
        logits = logits.float()
        chosen = logits.gather(1, torch.tensor(answer, device=model.device)[:, None])[:, 0]
        short = (logits.max(-1).values - chosen) / logits.std(-1)
        found += short.nan_to_num(float("inf")).tolist()
    return found


def judge(short: Sequence[float], dtype: str, experts: bool) -> dict[str, JsonValue]:
    """Return a summary of `shortfalls`; raises SetupError if one is more than the precision explains."""
    worst, half = max(short), EXPERTS_TOLERANCE if experts else HALF_TOLERANCE
    if worst > (EXACT_TOLERANCE if dtype == "float32" else half):
        raise SetupError(
            f"The engine's answers differ from the model's own: the worst of {len(short)} tokens is {worst:.2f} "
            "standard deviations below the model's choice. Set fuse: false, use_cuda_graph: false or attention: sdpa "
            "in benchmark_engine_options to find the cause."
        )
    return {"tokens": len(short), "same": sum(one == 0 for one in short), "worst": round(worst, 4)}
