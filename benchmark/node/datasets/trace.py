"""Queries as a service once had them: when they came and how long prompts and answers were, from a trace's file.

Two kinds of files are known, by their columns. Mooncake's are JSON lines: `timestamp` in milliseconds, `input_length`,
`output_length` and, where they are known, `hash_ids`: the blocks of `block_tokens` tokens that the prompt is made of.
Equal ids are equal tokens after equal tokens, so what a service could have kept in a cache can be kept here. Azure's
are CSV: `TIMESTAMP`, a date and time, `ContextTokens` and `GeneratedTokens`. Neither holds a text: prompts are random
tokens of the model's vocabulary, the same on every node.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmark.dataset_options import MOST_TOKENS, TraceOptions
from benchmark.errors import InputError, SetupError
from benchmark.node.drawing import chance, ordinary_tokens, tokens
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings, canonical_sha256

MOONCAKE = ("timestamp", "input_length", "output_length")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
COLUMNS = f"Mooncake's JSON lines ({', '.join(MOONCAKE)}, hash_ids) or Azure's CSV ({', '.join(AZURE)})"
# Of all prompts together: so many fit a node's memory.
MOST_TOKENS_OF_ALL = 2**28


@dataclass(frozen=True)
class Arrival:
    """A line of a trace."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the trace's queries in the order in which they came.

    Raises InputError for wrong options and for a line that is none, SetupError where file or model is not there.
    """
    chosen = check(TraceOptions, options, "The dataset trace")
    if not settings.benchmark_dataset_path:
        raise InputError(f"The dataset trace needs benchmark_dataset_path: a file with {COLUMNS}, on the node.")
    path = Path(settings.benchmark_dataset_path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"benchmark_dataset_path: {path} cannot be read: {error.strerror}.") from None
    arrivals = sorted(read_trace(content, str(path)), key=lambda one: one.at_s)[: chosen.queries]
    if not arrivals:
        raise InputError(f"{path}: the trace has no query.")
    vocabulary = ordinary_tokens(find_snapshot(settings))
    prompts = tuple(_prompts(arrivals, chosen, vocabulary, str(path)))
    # The tokens follow from these; of a long trace they are hundreds of millions.
    made_from = [hashlib.sha256(content).hexdigest(), chosen.model_dump(mode="json"), vocabulary]
    return Dataset(name="trace", prompts=prompts, sha256=canonical_sha256(made_from))


def read_trace(content: bytes, where: str) -> Iterator[Arrival]:
    """Yield the lines of a trace's file, in its order. Raises InputError, which names the line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8; a trace is {COLUMNS}.") from None
    first = text.lstrip()[:1]
    yield from _mooncake(text, where) if first == "{" else _azure(text, where)


def _mooncake(text: str, where: str) -> Iterator[Arrival]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            at_ms, sizes = row["timestamp"], [row[name] for name in MOONCAKE[1:]]
            blocks = row.get("hash_ids") or []
            whole = all(type(value) is int for value in (*sizes, *blocks)) and type(at_ms) in (int, float)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{where}, line {number}: not a JSON object; a trace is {COLUMNS}.") from None
        except KeyError as missing:
            raise InputError(f"{where}, line {number}: it has no {missing.args[0]}; a trace is {COLUMNS}.") from None
        if not whole:
            raise InputError(f"{where}, line {number}: {', '.join(MOONCAKE)} and hash_ids are numbers.")
        at_s = at_ms / 1000 if abs(at_ms) < 2**63 else math.inf
        yield _arrival(at_s, sizes, tuple(blocks), f"{where}, line {number}")


def _azure(text: str, where: str) -> Iterator[Arrival]:
    rows = csv.DictReader(io.StringIO(text))
    if missing := [name for name in AZURE if name not in (rows.fieldnames or ())]:
        raise InputError(f"{where}: it has no column {' and no '.join(missing)}; a trace is {COLUMNS}.")
    began: datetime | None = None
    for row in rows:
        place = f"{where}, line {rows.line_num}"
        try:
            at = _moment(row["TIMESTAMP"])
            sizes = [int(row[name]) for name in AZURE[1:]]
        except (ValueError, TypeError, AttributeError):
            raise InputError(f"{place}: not a date with its time and two whole numbers.") from None
        began = began or at
        yield _arrival((at - began).total_seconds(), sizes, (), place)


def _moment(text: str) -> datetime:
    """Return a time of Azure's: it has seven digits of a second, and Python six; a time without a zone is UTC."""
    head, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    at = datetime.fromisoformat(f"{head}{dot}{digits[:6].ljust(6, '0') if dot else ''}{rest[len(digits) :]}")
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _arrival(at_s: float, sizes: list[int], blocks: tuple[int, ...], place: str) -> Arrival:
    prompt, answer = sizes
    if not math.isfinite(at_s):
        raise InputError(f"{place}: its time is no number.")
    if not (1 <= prompt <= MOST_TOKENS and 0 <= answer <= MOST_TOKENS):
        raise InputError(f"{place}: a prompt has from 1 to {MOST_TOKENS} tokens, and an answer no more.")
    # A query that gave nothing is still asked, for its first token.
    return Arrival(at_s, prompt, max(1, answer), blocks)


def _prompts(arrivals: list[Arrival], chosen: TraceOptions, vocabulary: list[int], where: str) -> Iterator[Prompt]:
    blocks: dict[int, tuple[int, ...]] = {}
    sizes = [min(one.input_tokens, chosen.max_input_tokens) for one in arrivals]
    if sum(sizes) > MOST_TOKENS_OF_ALL:
        raise InputError(
            f"{where}: the prompts have {sum(sizes):,} tokens together, and at most {MOST_TOKENS_OF_ALL:,} are made: "
            "take fewer (queries), or shorter ones (max_input_tokens)."
        )
    for number, (one, size) in enumerate(zip(arrivals, sizes, strict=True)):
        ids: list[int] = []
        for block in one.blocks[: math.ceil(size / chosen.block_tokens)]:
            if block not in blocks:
                draw = chance(int.from_bytes(hashlib.sha256(f"{chosen.seed} block {block}".encode()).digest(), "big"))
                blocks[block] = tokens(chosen.block_tokens, vocabulary, draw)
            ids += blocks[block]
        # Beyond its blocks a prompt is nobody else's.
        own = chance(int.from_bytes(hashlib.sha256(f"{chosen.seed} query {number}".encode()).digest(), "big"))
        ids += tokens(max(0, size - len(ids)), vocabulary, own)
        yield Prompt(
            id=f"trace-{number:06}",
            text="",
            token_ids=tuple(ids[:size]),
            output_tokens=min(one.output_tokens, chosen.max_output_tokens),
            due_s=one.at_s - arrivals[0].at_s,
        )
