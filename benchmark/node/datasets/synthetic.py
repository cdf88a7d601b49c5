"""Prompts made of random tokens of the model's own vocabulary, of given lengths; only the model's files are needed.

For load tests with lengths that no real dataset has. Special tokens (begin and end of text, roles, ...) are left out,
as no real prompt looks like that. The same seed and the same model give the same prompts everywhere. The length of the
answers is set by the profile's `generation`, or drawn too. The prompts have no text: an engine that accepts no token
ids cannot answer them.
"""

from __future__ import annotations

from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.dataset_options import SyntheticOptions
from benchmark.node.drawing import Prefixes, chance, ordinary_tokens, tokens, whole
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the prompts. Raises InputError for wrong options, SetupError if the model is missing."""
    chosen = check(SyntheticOptions, options, "The dataset synthetic")
    vocabulary = ordinary_tokens(find_snapshot(settings))
    draw, answers = chance(chosen.seed), chance(chosen.seed ^ 0xA115)
    prefixes = Prefixes(
        chosen.shared_prefixes, chosen.shared_prefix_tokens, chosen.shared_prefix_share, vocabulary, chosen.seed
    )
    made = []
    for _ in range(chosen.prompts):
        before = prefixes.of_a_prompt(draw)
        made.append((*before, *tokens(whole(chosen.input_tokens, draw), vocabulary, draw)))
    lengths = [whole(chosen.output_tokens, answers) for _ in made] if chosen.output_tokens else [None] * len(made)
    prompts = tuple(
        Prompt(id=f"synthetic-{n:05}", text="", token_ids=ids, output_tokens=length)
        for n, (ids, length) in enumerate(zip(made, lengths, strict=True))
    )
    # Without lengths of answers the hash stays what it was before they existed.
    content: object = [made, lengths] if chosen.output_tokens else made
    return Dataset(name="synthetic", prompts=prompts, sha256=canonical_sha256(content))
