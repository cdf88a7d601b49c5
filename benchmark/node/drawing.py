"""Draw lengths, times and tokens by a seed: the same on every node, for any machine and library versions.

Only uses `random.Random.random`, for which Python guarantees the same numbers forever.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from benchmark.dataset_options import DistributionOptions, Span, bounds_of
from benchmark.errors import SetupError

Draw = Callable[[], float]
"""Returns numbers from 0 to below 1."""


def chance(seed: int) -> Draw:
    """Return a random number generator with this seed."""
    return random.Random(seed).random  # noqa: S311 # must be reproducible


def whole(drawn: float | Span | DistributionOptions, draw: Draw) -> int:
    """Return a whole number: a constant, uniform between two, or from a named distribution; uses one draw."""
    least, most = map(int, bounds_of(drawn))
    if not isinstance(drawn, DistributionOptions):
        return least + int(draw() * (most - least + 1))
    # Half a token wider at both ends, so that each whole number gets the share of what is rounded to it.
    return min(most, max(least, round(_inverse(drawn, draw(), least - 0.5, most + 0.5))))


def number(drawn: float | Span | DistributionOptions, draw: Draw) -> float:
    """Return a number from a distribution; uses one draw."""
    least, most = bounds_of(drawn)
    if not isinstance(drawn, DistributionOptions):
        return least + draw() * (most - least)
    return min(most, max(least, _inverse(drawn, draw(), least, most)))


def _inverse(asked: DistributionOptions, share: float, least: float, most: float) -> float:
    """Return the value below which `share` of the distribution between `least` and `most` is."""
    mean, stddev = asked.mean, asked.stddev
    if asked.distribution == "lognormal":
        variance = math.log1p((stddev / mean) ** 2)
        if variance == 0:  # too small for a double
            return mean
        normal = NormalDist(math.log(mean) - variance / 2, math.sqrt(variance))
        least, most = (math.log(end) if end > 0 else -math.inf for end in (least, most))
    else:
        normal = NormalDist(mean, stddev)
    below, upto = (0.0 if least == -math.inf else normal.cdf(least)), normal.cdf(most)
    at = below + share * (upto - below)
    # Outside this range a double cannot distinguish the share from none, or from all.
    value = normal.inv_cdf(min(max(at, 1e-300), 1 - 1e-16))
    return math.exp(value) if asked.distribution == "lognormal" else value


def tokens(count: int, vocabulary: Sequence[int], draw: Draw) -> tuple[int, ...]:
    """Return so many random tokens, one draw each."""
    return tuple(vocabulary[int(draw() * len(vocabulary))] for _ in range(count))


class Prefixes:
    """Common beginnings of prompts: which one a prompt has is drawn, their tokens come from their own seed."""

    def __init__(self, count: int, length: int, share: float, vocabulary: Sequence[int], seed: int) -> None:
        own = chance(seed ^ 0x5EED)
        self._each = [tokens(length, vocabulary, own) for _ in range(count)] if length else []
        self._share = share

    def of_a_prompt(self, draw: Draw) -> tuple[int, ...]:
        """Return the beginning of the next prompt; empty, without a draw, if there are none."""
        if not self._each or draw() >= self._share:
            return ()
        return self._each[int(draw() * len(self._each))]


def ordinary_tokens(snapshot: Path) -> list[int]:
    """Return the token ids that stand for text, ascending: without special tokens and the vocabulary's padding.

    Read from the model's configuration and its tokenizer's files; raises SetupError if they do not have them.
    """
    config = _read(snapshot / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise SetupError(f"{snapshot / 'config.json'} has no vocab_size.")
    tokenizer = _read(snapshot / "tokenizer.json")
    added = {token["id"] for token in tokenizer.get("added_tokens") or []}
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    # Either a dictionary of tokens (BPE, WordPiece), or a list in the order of their ids (Unigram).
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    ordinary = sorted(token_id for token_id in set(ids) - added if token_id < size)
    if not ordinary:
        raise SetupError(f"{snapshot / 'tokenizer.json'} has no vocabulary.")
    return ordinary


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}; it is needed to make prompts of token ids."
        ) from None
    except ValueError:
        raise SetupError(f"{path} is damaged: it is not JSON.") from None
    if not isinstance(content, dict):
        raise SetupError(f"{path} is damaged: it is not a JSON object.")
    return content
