"""What a run requires of its engine, and loading it: the profile's engine, or its fallback if it is unfit."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from benchmark.errors import BenchmarkError, InputError, Unfit
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Dataset, Demands, Engine, Prompt
from benchmark.profiles import Profile
from benchmark.records import EngineInfo
from benchmark.served import BECAUSE, INSTEAD_OF
from benchmark.settings import Settings


def demands_of(profile: Profile, dataset: Dataset, token_ids: bool) -> Demands:
    """Return what a run requires of its engine; `token_ids`: whether answers need them.

    Raises InputError if the dataset asks for longer answers than the profile's generation settings allow.
    """
    _require_lengths(profile, dataset)
    given = [prompt.token_ids for prompt in dataset.prompts if prompt.token_ids is not None]
    sampling = profile.generation.temperature > 0
    return Demands(
        greedy=profile.accuracy != "off" and profile.greedy_prompts > 0 and sampling,
        token_ids=token_ids,
        texts=len(given) < len(dataset.prompts),
        ids=bool(given),
        longest=max(contexts(dataset.prompts, profile.generation.max_new_tokens), default=0),
        lengths=any(prompt.output_tokens is not None for prompt in dataset.prompts),
        highest_id=max((max(ids, default=0) for ids in given), default=0),
    )


def contexts(prompts: Sequence[Prompt], longest_answer: int) -> list[int]:
    """Return the tokens of each prompt that has ids, including the earlier turns of its conversation."""
    found: list[int] = []
    for prompt in prompts:
        before = 0
        if prompt.follows is not None:
            answer = prompts[prompt.follows].output_tokens
            before = found[prompt.follows] + (longest_answer if answer is None else answer)
        found.append(before + len(prompt.token_ids or ()))
    return found


def _require_lengths(profile: Profile, dataset: Dataset) -> None:
    longest = max((prompt.output_tokens or 0 for prompt in dataset.prompts), default=0)
    if longest > profile.generation.max_new_tokens:
        raise InputError(
            f"The dataset {dataset.name} asks for answers of up to {longest} tokens, but the profile's "
            f"generation.max_new_tokens is {profile.generation.max_new_tokens}: raise it, or let the dataset ask for "
            "shorter ones."
        )


def load_engine(
    profile: Profile, settings: Settings, equip: Callable[[Engine], None], stack: ExitStack, apart: bool = False
) -> tuple[Engine, EngineInfo]:
    """Return the loaded engine and its description; `equip` sets its attributes, `stack` closes it.

    `apart`: see `make_engine`. Raises as `Engine.load` does.
    """

    def load(name: str, options: dict[str, Any]) -> tuple[Engine, EngineInfo]:
        engine = make_engine(name, settings, profile.generation, options, apart)
        equip(engine)
        with ExitStack() as trying:
            trying.callback(engine.close)
            info = engine.load()
            stack.push(trying.pop_all())
        return engine, info

    try:
        return load(profile.engine, dict(profile.engine_options))
    except Unfit as unfit:
        if not profile.fallback_engine:
            raise
        reason = str(unfit)
    # Outside the handler: only here is the failed engine released; a model, with its reference cycles, needs this call.
    gc.collect()
    words = f"{profile.fallback_engine} answers instead of {profile.engine}: {reason}"
    print(words, file=sys.stderr, flush=True)
    try:
        engine, info = load(profile.fallback_engine, {})
    except BenchmarkError as error:
        raise type(error)(f"{error} ({words})") from error
    details = {**info.details, INSTEAD_OF: profile.engine, BECAUSE: reason}
    return engine, info.model_copy(update={"details": details})
