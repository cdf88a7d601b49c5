"""What the answers are worth: held against the dataset's references, as MLPerf's evaluation does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.node.interfaces import Dataset
from benchmark.records import Rouge, Sample
from benchmark.settings import Settings


def has_references(dataset: Dataset) -> bool:
    """Tell whether every prompt has an answer to hold the model's against."""
    return all(prompt.reference is not None for prompt in dataset.prompts)


def answers_of(samples: Iterable[Sample]) -> dict[int, tuple[int, ...]]:
    """Return the completed samples' token ids by the prompt's number, which is the query's in an accuracy run."""
    return {sample.index: sample.token_ids for sample in samples if sample.error is None}


def read_answers(path: Path) -> dict[int, tuple[int, ...]]:
    """Return the token ids in LoadGen's mlperf_log_accuracy.json by the prompt's number."""
    raise NotImplementedError(path)


def score(answers: Mapping[int, Sequence[int]], dataset: Dataset, settings: Settings) -> Rouge:
    """Return how well the answers agree with the dataset's references."""
    raise NotImplementedError(answers, dataset, settings)
