"""A node's samples read as columns: a run of a thousand nodes has a gigabyte of token ids, which nobody looks at here.

What `Sample` says holds for every line. Lines as this program writes them are seen to be samples without making one of
each; lines of which that is not plain go through `Sample` itself, which accepts or refuses them in its own words.
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

# Lines that are looked at together: their token ids fit a processor's cache.
TOGETHER = 1024
# The token ids of a line stand between these.
BEFORE_IDS = b',"token_ids":['
AFTER_IDS = b'],"error":'
# Numbers of more digits are none to `Sample`; a lower bound of that.
MOST_DIGITS = 4000

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Text = Annotated[str, msgspec.Meta(max_length=4000)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a `Sample` has beside its token ids; stricter: a number is nothing but a whole number in digits."""

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
    """Return every whole sample, as `files.read_samples` does. Raises InputError as that does, in the same words."""
    *lines, last = read_lines(path, MAX_SAMPLES_BYTES)
    parts = []
    for start in range(0, len(lines), TOGETHER):
        some = lines[start : start + TOGETHER]
        plain = _plain(some)
        parts.append(Columns.of(records_in(path, some, Sample, "sample", start + 1)) if plain is None else plain)
    return Columns.joined([*parts, Columns.of(last_record(last, Sample))])


def _plain(lines: Sequence[bytes]) -> Columns | None:
    """Return the samples in `lines`; None where one of them may be none.

    The token ids are cut out of each line. What is left must be an object with fields of a sample and no other, which
    leaves no room for a second list of them. Were the cut within a string, the decoder would find `error` right after
    that string's end; were it within another object or list, it would find that where no field has any.
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
    """Return how many token ids are in each text; None where one is not numbers with commas between them."""
    text = np.frombuffer(b"\n".join([*texts, b""]), dtype=np.uint8)
    ends = np.flatnonzero(text - ord("0") > 9)  # of numbers: where no digit stands
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts
    last = np.flatnonzero(text[ends] == ord("\n"))
    counts = np.diff(last, prepend=-1)
    no_ids = (counts == 1) & (digits[last] == 0)
    if np.count_nonzero(text == ord(",")) + len(last) < len(ends):
        return None  # something else than a comma
    if np.count_nonzero(digits == 0) > np.count_nonzero(no_ids):
        return None  # nothing between two commas, or before or after one
    if ((text[starts] == ord("0")) & (digits > 1)).any() or digits.max() > MOST_DIGITS:
        return None
    return np.where(no_ids, 0, counts)


def _consistent(samples: Columns, failed: Flags, ids: Ints) -> bool:
    """Return whether what `Sample` asks of the fields together holds for all of them."""
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
