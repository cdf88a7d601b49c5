"""Samples as columns of numbers, for arithmetic over thousands of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Stands for a missing number; real ones are not negative.
ABSENT = -1


@dataclass(frozen=True)
class Columns:
    """Columns with an entry for each sample, in the given order. Times are in nanoseconds."""

    index: Ints
    scheduled_ns: Ints
    issued_ns: Ints
    first_token_ns: Ints
    completed_ns: Ints
    first_reported_ns: Ints
    reported_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    pieces: Ints
    first_piece_tokens: Ints
    usage_tokens: Ints
    asked_tokens: Ints
    cached_tokens: Ints
    server: Ints

    @classmethod
    def of(cls, samples: Iterable[Any]) -> Columns:
        """Return the columns of `Sample` records, or of objects with the same attributes."""
        each = list(samples)
        return cls(
            index=_column([s.index for s in each]),
            scheduled_ns=_optional([s.scheduled_ns for s in each]),
            issued_ns=_column([s.issued_ns for s in each]),
            first_token_ns=_optional([s.first_token_ns for s in each]),
            completed_ns=_optional([s.completed_ns for s in each]),
            first_reported_ns=_optional([s.first_reported_ns for s in each]),
            reported_ns=_optional([s.reported_ns for s in each]),
            input_tokens=_column([s.input_tokens for s in each]),
            output_tokens=_column([s.output_tokens for s in each]),
            pieces=_optional([s.pieces for s in each]),
            first_piece_tokens=_optional([s.first_piece_tokens for s in each]),
            usage_tokens=_optional([s.usage_tokens for s in each]),
            asked_tokens=_optional([s.asked_tokens for s in each]),
            cached_tokens=_optional([s.cached_tokens for s in each]),
            server=_optional([s.server for s in each]),
        )

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Return the samples of all parts, concatenated."""
        return cls(*map(np.concatenate, zip(*map(_each, [cls.of(()), *parts]), strict=True)))

    def __len__(self) -> int:
        return len(self.index)

    def where(self, chosen: Flags) -> Columns:
        """Return the selected samples."""
        return Columns(*(column[chosen] for column in _each(self)))

    @property
    def completed(self) -> Flags:
        """Which samples completed; the others failed."""
        return np.not_equal(self.completed_ns, ABSENT)

    @property
    def last_ns(self) -> int:
        """The time of the last event: a completion, or the issue of a failed query."""
        return int(np.maximum(self.issued_ns, self.completed_ns).max(initial=0))


def doubles(values: Floats) -> array[float]:
    """Return the values as Python numbers, for loops: numpy's own are slow there."""
    return array("d", values.tobytes())


def _each(columns: Columns) -> tuple[Ints, ...]:
    return tuple(vars(columns).values())


def _column(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _optional(values: list[int | None]) -> Ints:
    return np.array([ABSENT if value is None else value for value in values], dtype=np.int64)
