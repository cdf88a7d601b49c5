"""Queries that a service once had: their times and the lengths of prompts and answers, from a trace file.

Two kinds of files are supported, told apart by their columns. Mooncake's are JSON lines: `timestamp` in milliseconds,
`input_length`, `output_length` and, if known, `hash_ids`: the blocks of `block_tokens` tokens that the prompt consists
of. Equal ids mean equal tokens after equal tokens, so whatever the service could have cached can be cached here.
Azure's are CSV: `TIMESTAMP`, a date and time, `ContextTokens` and `GeneratedTokens`. Neither holds text: prompts are
random tokens of the model's vocabulary, the same on every node. A file is only read as far as needed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from benchmark.canonical import canonical_sha256
from benchmark.dataset_options import MOST_TOKENS, TraceOptions
from benchmark.errors import InputError, SetupError
from benchmark.node.drawing import chance, ordinary_tokens, tokens
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings
from benchmark.trace_columns import AZURE, COLUMNS, MOONCAKE, is_mooncake

# For all prompts together: this fits a node's memory.
MOST_TOKENS_OF_ALL, MOST_QUERIES = 2**28, 10**6
# Characters in a line: enough for the blocks of a prompt of MOST_TOKENS.
MOST_OF_A_LINE = 2**20


@dataclass(frozen=True)
class Arrival:
    """A line of a trace."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the trace's queries in order of arrival.

    Raises InputError for wrong options and malformed lines, SetupError if the file or the model is missing.
    """
    chosen = check(TraceOptions, options, "The dataset trace")
    if not settings.benchmark_dataset_path:
        raise InputError(f"The dataset trace needs benchmark_dataset_path: a file with {COLUMNS}, on the node.")
    path = Path(settings.benchmark_dataset_path).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            arrivals = list(_wanted(read_trace(_lines(file, str(path)), str(path)), chosen, str(path)))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; a trace is {COLUMNS}.") from None
    except csv.Error as error:
        raise InputError(f"{path}: not CSV: {error}; a trace is {COLUMNS}.") from None
    except OSError as error:
        raise SetupError(f"benchmark_dataset_path: {path} cannot be read: {error.strerror}.") from None
    if not arrivals:
        raise InputError(f"{path}: the trace has no queries.")
    vocabulary = ordinary_tokens(find_snapshot(settings))
    # The tokens follow from these; a long trace has hundreds of millions of tokens.
    made_from = [[astuple(one) for one in arrivals], chosen.model_dump(mode="json"), vocabulary]
    return Dataset(
        name="trace", prompts=tuple(_prompts(arrivals, chosen, vocabulary)), sha256=canonical_sha256(made_from)
    )


def read_trace(lines: Iterable[str], where: str) -> Iterator[Arrival]:
    """Yield the queries of a trace's lines in order. Raises InputError, naming the line."""
    rest = enumerate(lines, start=1)
    first = next(((number, line) for number, line in rest if line.strip()), None)
    if first is None:
        raise InputError(f"{where}: it is empty; a trace is {COLUMNS}.")
    numbered = chain([first], rest)
    before_s = -math.inf
    for place, one in (_mooncake if is_mooncake(first[1]) else _azure)(numbered, where):
        if one.at_s < before_s:
            raise InputError(
                f"{place}: it is earlier than the query above it: sort the file by time, with one trace per file."
            )
        before_s = one.at_s
        yield one


def _lines(file: TextIO, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(MOST_OF_A_LINE + 1):
        number += 1
        if len(line) > MOST_OF_A_LINE:
            raise InputError(
                f"{where}, line {number}: longer than {MOST_OF_A_LINE:,} characters; a trace is {COLUMNS}."
            )
        yield line


def _wanted(arrivals: Iterator[Arrival], chosen: TraceOptions, where: str) -> Iterator[Arrival]:
    """Yield the requested queries. Raises InputError if they exceed a node's memory."""
    together = 0
    for count, one in enumerate(islice(arrivals, chosen.queries), start=1):
        together += min(one.input_tokens, chosen.max_input_tokens)
        if together > MOST_TOKENS_OF_ALL or count > MOST_QUERIES:
            raise InputError(
                f"{where}: it has more than {MOST_QUERIES:,} queries, or prompts of more than {MOST_TOKENS_OF_ALL:,} "
                "tokens together: use fewer (queries), or shorter ones (max_input_tokens)."
            )
        yield one


def _mooncake(lines: Iterator[tuple[int, str]], where: str) -> Iterator[tuple[str, Arrival]]:
    for number, line in lines:
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            row = json.loads(line)
            at_ms, sizes = row["timestamp"], [row[name] for name in MOONCAKE[1:]]
            blocks = row.get("hash_ids") or []
            whole = all(type(value) is int for value in (*sizes, *blocks)) and type(at_ms) in (int, float)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{place}: not a JSON object; a trace is {COLUMNS}.") from None
        except KeyError as missing:
            raise InputError(f"{place}: it has no {missing.args[0]}; a trace is {COLUMNS}.") from None
        if not whole:
            raise InputError(f"{place}: {', '.join(MOONCAKE)} and hash_ids must be numbers.")
        at_s = at_ms / 1000 if abs(at_ms) < 2**63 else math.inf
        yield place, _arrival(at_s, sizes, tuple(blocks), place)


def _azure(lines: Iterator[tuple[int, str]], where: str) -> Iterator[tuple[str, Arrival]]:
    number, head = next(lines)
    rows = csv.DictReader(chain([head], (line for _, line in lines)))
    if missing := [name for name in AZURE if name not in (rows.fieldnames or ())]:
        raise InputError(f"{where}: it has no column {' and no '.join(missing)}; a trace is {COLUMNS}.")
    began: datetime | None = None
    for row in rows:
        place = f"{where}, line {number - 1 + rows.line_num}"
        try:
            at = _moment(row["TIMESTAMP"])
            sizes = [int(row[name]) for name in AZURE[1:]]
            began = began or at
            at_s = (at - began).total_seconds()
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"{place}: not a date and time and two whole numbers.") from None
        yield place, _arrival(at_s, sizes, (), place)


def _moment(text: str) -> datetime:
    """Parse a time of Azure's, whose seconds have seven decimals (Python's have six); without a zone it is UTC."""
    head, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    at = datetime.fromisoformat(f"{head}{dot}{digits[:6].ljust(6, '0') if dot else ''}{rest[len(digits) :]}")
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _arrival(at_s: float, sizes: list[int], blocks: tuple[int, ...], place: str) -> Arrival:
    prompt, answer = sizes
    if not math.isfinite(at_s):
        raise InputError(f"{place}: its time is not a number.")
    if not (1 <= prompt <= MOST_TOKENS and 0 <= answer <= MOST_TOKENS):
        raise InputError(f"{place}: a prompt must have from 1 to {MOST_TOKENS} tokens, and an answer no more.")
    # A query without output is still issued, for its first token.
    return Arrival(at_s, prompt, max(1, answer), blocks)


def _prompts(arrivals: list[Arrival], chosen: TraceOptions, vocabulary: list[int]) -> Iterator[Prompt]:
    blocks: dict[int, tuple[int, ...]] = {}
    for number, one in enumerate(arrivals):
        size = min(one.input_tokens, chosen.max_input_tokens)
        ids: list[int] = []
        for block in one.blocks[: math.ceil(size / chosen.block_tokens)]:
            if block not in blocks:
                draw = chance(int.from_bytes(hashlib.sha256(f"{chosen.seed} block {block}".encode()).digest(), "big"))
                blocks[block] = tokens(chosen.block_tokens, vocabulary, draw)
            ids += blocks[block]
        # Beyond its blocks a prompt shares nothing with others.
        own = chance(int.from_bytes(hashlib.sha256(f"{chosen.seed} query {number}".encode()).digest(), "big"))
        ids += tokens(max(0, size - len(ids)), vocabulary, own)
        yield Prompt(
            id=f"trace-{number:06}",
            text="",
            token_ids=tuple(ids[:size]),
            output_tokens=min(one.output_tokens, chosen.max_output_tokens),
            due_s=one.at_s - arrivals[0].at_s,
        )
