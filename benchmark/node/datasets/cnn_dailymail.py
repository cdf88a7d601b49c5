"""CNN/DailyMail validation as MLPerf prepares it for Llama-3.1-8B: news articles to summarise, with references.

Read from a `cnn_eval.json`: a list of objects with `input` (the article), `tok_input` (the prompt's token ids) and
`output` (the reference). MLPerf's own has 13,368 entries, with one line per token id, so the file is read in pieces.

MLPerf's edge benchmark uses 5,000 of them: the first after a shuffle, not the first of the file.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.dataset_options import CnnDailymailOptions
from benchmark.errors import SetupError
from benchmark.files import file_sha256
from benchmark.node.hub.prepared import prepared_path, read_record, tokenizer_sha256
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.load import find_snapshot
from benchmark.node.options import check
from benchmark.settings import Settings

KEYS = {"input": str, "tok_input": list, "output": str}
PIECE_BYTES = 4 * 2**20
# No article is that long; a longer entry means that the file is something else.
MAX_ENTRY_CHARACTERS = 16 * 2**20
WHITE_SPACE = " \t\r\n"
# The number of articles in the edge benchmark, and the seed of its shuffle.
EDGE_PROMPTS, EDGE_SEED = 5000, 42


def load(settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the prompts in the file's order; option `prompts` limits their number.

    With the option `edge` they are the edge benchmark's, in its order. A file with no more prompts than that (MLPerf's
    own cnn_eval_5000.json) holds these already.

    Raises InputError for unknown options; SetupError, naming the file and the fault, if the file is absent, malformed
    or not the one that was prepared.
    """
    chosen = check(CnnDailymailOptions, options, "The dataset cnn_dailymail")
    most, edge = chosen.prompts, chosen.edge
    own = settings.benchmark_dataset_path
    path = Path(own).expanduser() if own else prepared_path(settings)
    try:
        digest = file_sha256(path)
        if not own:
            _require_prepared(settings, path, digest)
        prompts = _edge(tuple(_prompts(path, None)))[:most] if edge else tuple(_prompts(path, most))
    except FileNotFoundError:
        raise SetupError(
            f"benchmark_dataset_path is {path}, which does not exist." if own
            else f"CNN/DailyMail is not prepared ({path}): run playbooks/provision.yml, or python3 -m benchmark "
            "fetch-dataset; or set benchmark_dataset_path to your own cnn_eval.json."
        ) from None  # fmt: skip
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from None
    if not prompts:
        raise SetupError(f"{path} has no entries.")
    return Dataset(name="cnn_dailymail", prompts=prompts, sha256=digest)


def _edge(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    """Return the result of the reference's `shuffle(seed=42).take(5000)`: a permutation by NumPy's generator."""
    if len(prompts) <= EDGE_PROMPTS:
        return prompts
    chosen = np.random.default_rng(EDGE_SEED).permutation(len(prompts))[:EDGE_PROMPTS]
    return tuple(prompts[number] for number in chosen)


def _require_prepared(settings: Settings, path: Path, digest: str) -> None:
    record = read_record(path)
    if record is None or record.sha256 != digest:
        raise SetupError(f"{path} is damaged: run playbooks/provision.yml, which prepares it again.")
    if record.tokenizer != tokenizer_sha256(find_snapshot(settings)):
        raise SetupError(
            f"{path} was prepared with a different tokenizer from that of {settings.benchmark_model} now: run "
            "playbooks/provision.yml, which prepares it again."
        )


def _prompts(path: Path, most: int | None) -> Iterator[Prompt]:
    shared: dict[int, int] = {}
    for number, entry in enumerate(_entries(path)):
        if number == most:
            return
        _require_entry(path, number, entry)
        # One object per number, however often it occurs: thirteen million token ids, about ten thousand numbers.
        given = entry["tok_input"]
        token_ids = tuple(map(shared.setdefault, given, given))
        yield Prompt(id=f"cnn-{number:05}", text=entry["input"], token_ids=token_ids, reference=entry["output"])


def _require_entry(path: Path, number: int, entry: Any) -> None:
    place = f"{path}: entry {number} (from 0)"
    if not isinstance(entry, dict):
        raise SetupError(f"{place} is not an object with {', '.join(KEYS)}.")
    for key, kind in KEYS.items():
        if key not in entry:
            raise SetupError(f"{place} has no {key!r}: is it a cnn_eval.json for Llama-3.1-8B?")
        if not isinstance(entry[key], kind):
            raise SetupError(f"{place}: {key!r} is not a {'list of token ids' if kind is list else 'text'}.")
    token_ids = entry["tok_input"]
    # type instead of isinstance: true and false are ints too.
    if not token_ids or set(map(type, token_ids)) != {int} or min(token_ids) < 0:
        raise SetupError(f"{place}: 'tok_input' is not a list of token ids, or it is empty.")


def _entries(path: Path) -> Iterator[Any]:
    """Yield the elements of a JSON file's list, reading the file in pieces."""
    decoder, text = json.JSONDecoder(), _Text(path)
    with text:
        if text.next_character() != "[":
            raise SetupError(f"{path} is not a JSON list of articles{'' if text.rest else ': it is empty'}.")
        text.skip()
        number = 0
        if text.next_character() == "]":
            return
        while True:
            yield text.value(decoder, number)
            number += 1
            match text.next_character():
                case ",":
                    text.skip()
                case "]":
                    return
                case _:
                    raise SetupError(f"{path} ends after {number} entries: it is truncated or damaged.")


class _Text:
    """A text file's content, with no more than one entry and one piece in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._at = 0
        self.rest = ""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def next_character(self) -> str:
        """Return the next character that is not white space, without consuming it; empty at the end of the file."""
        while True:
            while self._at < len(self.rest) and self.rest[self._at] in WHITE_SPACE:
                self._at += 1
            if self._at < len(self.rest):
                return self.rest[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Consume one character."""
        self._at += 1

    def value(self, decoder: json.JSONDecoder, number: int) -> Any:
        """Consume one JSON value, which is entry `number`."""
        self.next_character()
        while True:
            try:
                # A number at the end of a piece may continue in the next; an entry, being an object, may not.
                value, self._at = decoder.raw_decode(self.rest, self._at)
            except (ValueError, RecursionError):
                if len(self.rest) - self._at > MAX_ENTRY_CHARACTERS or not self._more():
                    raise SetupError(
                        f"{self._path}: entry {number} (from 0) is not JSON: the file is truncated or damaged."
                    ) from None
            else:
                return value

    def _more(self) -> bool:
        piece = self._file.read(PIECE_BYTES)
        try:
            text = self._decode.decode(piece, final=not piece)
        except UnicodeDecodeError:
            raise SetupError(f"{self._path} is not UTF-8 text: it is damaged, or not a cnn_eval.json.") from None
        self.rest = self.rest[self._at :] + text
        self._at = 0
        return bool(piece)
