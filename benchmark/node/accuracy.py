"""Accuracy of the answers: their ROUGE scores against the dataset's references, as in MLPerf's evaluation."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark.errors import RunError, SetupError
from benchmark.node.interfaces import Dataset
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.tokenizer import decode, load_tokenizer
from benchmark.node.sentences import REMEDY, sentence_splitter
from benchmark.records import Rouge, Sample
from benchmark.settings import Settings

MEASURES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# The token size that LoadGen is given (`loadgen_run.py`).
TOKEN_BYTES = 4


def has_references(dataset: Dataset) -> bool:
    """Return whether every prompt has a reference answer."""
    return all(prompt.reference is not None for prompt in dataset.prompts)


def require_scoring() -> None:
    """Raise SetupError if `score` cannot work here: before an hour of measuring, not after it."""
    sentence_splitter()
    _scorer()


def answers_of(samples: Iterable[Sample]) -> dict[int, tuple[int, ...]]:
    """Return the completed samples' token ids by prompt number, which in an accuracy run is the query's number."""
    return {sample.index: sample.token_ids for sample in samples if sample.error is None}


def model_ends(settings: Settings) -> tuple[int, ...]:
    """Return the tokens that end the model's answers, from its own files; empty if it has none."""
    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads((find_snapshot(settings) / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (SetupError, OSError, ValueError, AttributeError):
            continue
        ends = found if isinstance(found, list) else [found]
        if ends and all(type(end) is int and end >= 0 for end in ends):
            return tuple(ends)
    return ()


def read_answers(path: Path) -> dict[int, tuple[int, ...]]:
    """Return the token ids in LoadGen's mlperf_log_accuracy.json by prompt number.

    If a prompt has several answers, the first counts, as in MLPerf's evaluation. Raises RunError, naming the file and
    the fault, if the file holds no answers or is truncated.
    """
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"LoadGen's answers cannot be read: {path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not JSON: LoadGen was stopped before it had written all answers.") from None
    if not isinstance(log, list) or not log:
        raise RunError(f"{path} has no answers: LoadGen was not run in accuracy mode, or every query failed.")
    answers: dict[int, tuple[int, ...]] = {}
    for position, entry in enumerate(log):
        try:
            number, token_ids = _answer(entry)
        except (KeyError, TypeError, ValueError, struct.error):
            raise RunError(
                f"{path}: entry {position} (from 0) is not an answer with qsl_idx and, as data, the hexadecimal form "
                "of 32-bit token ids."
            ) from None
        answers.setdefault(number, token_ids)
    return answers


def _answer(entry: Any) -> tuple[int, tuple[int, ...]]:
    number, data = entry["qsl_idx"], bytes.fromhex(entry["data"])
    token_ids = struct.unpack(f"<{len(data) // TOKEN_BYTES}i", data)
    if type(number) is not int or min((number, *token_ids)) < 0:
        raise ValueError
    return number, token_ids


def score(answers: Mapping[int, Sequence[int]], dataset: Dataset, settings: Settings) -> Rouge:
    """Return how well the answers agree with the dataset's references.

    `answers` are token ids by prompt number. Prompts without an answer are left out of the means; the counts say how
    many they are. Raises SetupError if a package or the tokenizer is missing, RunError for answers to unknown prompts.
    """
    if not answers:
        raise RunError("There is no answer to compare with the references: every query failed.")
    split, scorer = sentence_splitter(), _scorer()
    tokenizer = load_tokenizer(find_snapshot(settings))
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    characters = 0
    for number, token_ids in answers.items():
        reference = dataset.prompts[number].reference if number < len(dataset.prompts) else None
        if reference is None:
            raise RunError(f"Prompt {number} was answered, but {dataset.name} has no reference for it.")
        # ROUGE-Lsum expects each sentence on its own line.
        answer = "\n".join(split(decode(tokenizer, token_ids).strip()))
        for measure, one in scorer.score("\n".join(split(reference.strip())), answer).items():
            found[measure].append(one.fmeasure)
        characters += len(answer)
    return Rouge(
        **{measure: round(fmean(each) * 100, 4) for measure, each in found.items()},
        generated_characters=characters,
        answers=len(answers),
        references=sum(prompt.reference is not None for prompt in dataset.prompts),
    )


def _scorer() -> Any:
    """Return rouge_score's scorer with stemming, which stems each word only once."""
    try:
        from nltk.stem.porter import PorterStemmer
        from rouge_score import tokenize
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as missing:
        raise SetupError(
            f"Accuracy cannot be measured: the package {missing.name or 'rouge-score'} is not installed: {REMEDY}"
        ) from None

    class Tokenizer:
        def __init__(self) -> None:
            self.stem = lru_cache(maxsize=2**16)(PorterStemmer().stem)

        def tokenize(self, text: str) -> list[str]:
            tokens: list[str] = tokenize.tokenize(text, self)
            return tokens

    return RougeScorer(list(MEASURES), tokenizer=Tokenizer())
