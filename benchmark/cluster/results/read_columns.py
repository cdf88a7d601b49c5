"""Read a node's samples as columns: a run of a thousand nodes has a gigabyte of token ids, which are not needed here.

The rules of `Sample` hold for every line. Lines in the form that this program writes are checked without creating a
`Sample`; all others go through `Sample` itself, which accepts them or refuses them in its own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from benchmark.columns import ABSENT, Columns, Flags, Ints
from benchmark.files import MAX_SAMPLES_BYTES, last_record, read_lines, records_in
from benchmark.records import Sample

# Lines that are checked together: their token ids fit into a CPU cache.
TOGETHER = 1024
# The token ids of a line are between these.
BEFORE_IDS = b',"token_ids":['
AFTER_IDS = b'],"error":'
# `Sample` refuses numbers of more digits than some limit; this is below it.
MOST_DIGITS = 4000

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Text = Annotated[str, msgspec.Meta(max_length=4000)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The fields of a `Sample` without its token ids; stricter: numbers are whole numbers in digits."""

    index: _Count
    prompt_id: _Name
    issued_ns: _Count
    scheduled_ns: _Count | None = None
    first_token_ns: _Count | None = None
    completed_ns: _Count | None = None
    first_reported_ns: _Count | None = None
    reported_ns: _Count | None = None
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    pieces: _Count | None = None
    first_piece_tokens: _Count | None = None
    usage_tokens: _Count | None = None
    asked_tokens: _Count | None = None
    cached_tokens: _Count | None = None
    server: _Count | None = None
    error: _Text | None = None


_decode = msgspec.json.Decoder(_Line).decode


def read_columns(path: Path) -> Columns:
    """Return every whole sample, like `files.read_samples`. Raises the same InputError."""
    *lines, last = read_lines(path, MAX_SAMPLES_BYTES)
    parts = []
    for start in range(0, len(lines), TOGETHER):
        some = lines[start : start + TOGETHER]
        plain = _plain(some)
        parts.append(Columns.of(records_in(path, some, Sample, "sample", start + 1)) if plain is None else plain)
    return Columns.joined([*parts, Columns.of(last_record(last, Sample))])


def _plain(lines: Sequence[bytes]) -> Columns | None:
    """Return the samples in `lines`; None if one of them may not be a sample.

    The token ids are cut out of each line. The rest must be an object with only a sample's fields, so it cannot have a
    second list of ids. If the cut were within a string, the decoder would find `error` right after the string's end; if
    it were within another object or list, the decoder would find one where no field has any.
    """
    rest, ids = [], []
    for line in lines:
        start, end = line.find(BEFORE_IDS), line.rfind(AFTER_IDS)
        if not 0 <= start <= end - len(BEFORE_IDS):
            return None
        rest.append(line[:start] + line[end + 1 :])
        ids.append(line[start + len(BEFORE_IDS) : end])
    try:
        each = [_decode(line) for line in rest]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    columns, counts = Columns.of(each), _count_ids(ids)
    failed = np.array([line.error is not None for line in each])
    return columns if counts is not None and _consistent(columns, failed, counts) else None


def _count_ids(texts: Sequence[bytes]) -> Ints | None:
    """Return how many token ids are in each text; None if one is not a list of numbers separated by commas."""
    text = np.frombuffer(b"\n".join([*texts, b""]), dtype=np.uint8)
    ends = np.flatnonzero(text - ord("0") > 9)  # ends of numbers: where there is no digit
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts
    last = np.flatnonzero(text[ends] == ord("\n"))
    counts = np.diff(last, prepend=-1)
    no_ids = (counts == 1) & (digits[last] == 0)
    if np.count_nonzero(text == ord(",")) + len(last) < len(ends):
        return None  # something other than a comma
    if np.count_nonzero(digits == 0) > np.count_nonzero(no_ids):
        return None  # no number between two commas, or before or after one
    if ((text[starts] == ord("0")) & (digits > 1)).any() or digits.max() > MOST_DIGITS:
        return None
    return np.where(no_ids, 0, counts)


def _consistent(samples: Columns, failed: Flags, ids: Ints) -> bool:
    """Return whether the rules of `Sample` that involve several fields hold for all samples."""
    in_order = np.ones(len(samples), dtype=bool)
    before = np.zeros(len(samples), dtype=np.int64)
    for moment in (
        samples.scheduled_ns,
        samples.issued_ns,
        samples.first_token_ns,
        samples.completed_ns,
        samples.reported_ns,
    ):
        in_order &= (moment == ABSENT) | (moment >= before)
        before = np.maximum(before, moment)
    heard = samples.first_reported_ns
    in_order &= (heard == ABSENT) | ((samples.first_token_ns != ABSENT) & (heard >= samples.first_token_ns))
    ended = samples.completed != failed
    timed = failed | (samples.output_tokens == 0) | (samples.first_token_ns != ABSENT)
    counted = (ids == 0) | (ids == samples.output_tokens)
    return bool((in_order & ended & timed & counted).all())
