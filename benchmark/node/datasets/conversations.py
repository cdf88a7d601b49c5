"""Conversations of several turns, of random tokens: each prompt is a question and everything said before it.

Earlier answers become part of the next prompt exactly as they were given. So prompts grow, and a server with a prefix
cache can reuse more of it the longer a conversation is. The scenario `conversations` assembles the prompts. The same
seed and the same model give the same questions everywhere.
"""

from __future__ import annotations

from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.dataset_options import ConversationsOptions
from benchmark.node.drawing import Prefixes, chance, number, ordinary_tokens, tokens, whole
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return a prompt for each turn; those of a conversation follow one another.

    Raises InputError for wrong options, SetupError if the model is missing.
    """
    chosen = check(ConversationsOptions, options, "The dataset conversations")
    vocabulary = ordinary_tokens(find_snapshot(settings))
    draw = chance(chosen.seed)
    prefixes = Prefixes(
        chosen.shared_prefixes, chosen.shared_prefix_tokens, chosen.shared_prefix_share, vocabulary, chosen.seed
    )
    prompts: list[Prompt] = []
    for conversation in range(chosen.conversations):
        before = prefixes.of_a_prompt(draw)
        for turn in range(whole(chosen.turns, draw)):
            question = tokens(whole(chosen.input_tokens, draw), vocabulary, draw)
            prompts.append(
                Prompt(
                    id=f"conversation-{conversation:05}-turn-{turn + 1}",
                    text="",
                    token_ids=question if turn else (*before, *question),
                    output_tokens=None if chosen.output_tokens is None else whole(chosen.output_tokens, draw),
                    follows=len(prompts) - 1 if turn else None,
                    think_s=number(chosen.think_s, draw) if turn else 0.0,
                )
            )
    content = [[one.token_ids, one.output_tokens, one.follows, one.think_s] for one in prompts]
    return Dataset(name="conversations", prompts=tuple(prompts), sha256=canonical_sha256(content))
