"""CNN/DailyMail validation, prepared as MLPerf does it for Llama-3.1-8B.

The Parquet files come verified into the Hugging Face cache, as a model's files do (`fetch.py`). Out of them and of the
model's own tokenizer the prompts are made once; a run reads them from one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import SetupError
from benchmark.files import write_record
from benchmark.node.hub.cache import COMMIT, Manifest
from benchmark.node.hub.download import disk_error, huggingface_hub_package
from benchmark.node.hub.fetch import fetch
from benchmark.node.hub.files import DATASET
from benchmark.node.hub.prepared import TEMPLATE, PreparedRecord, prepared_path, record_path, sound, tokenizer_sha256
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.settings import Settings

ARTICLE, SUMMARY = "article", "highlights"
# Rows that are tokenised together: enough for the tokenizer's threads, few enough to need little memory.
BATCH_ROWS = 256


@dataclass(frozen=True)
class FetchedDataset:
    """The prepared file, and whether this call changed it (with `check`: whether it would)."""

    changed: bool
    path: str
    sha256: str | None = None
    """None, like `prompts`: with `check`, it is not there yet."""
    prompts: int | None = None
    commit: str | None = None
    snapshot: str | None = None
    missing: list[str] = field(default_factory=list)
    """With `check`: etags of the Parquet files that are absent or damaged and needed."""


def fetch_dataset(
    settings: Settings,
    token: str | None,
    *,
    check: bool = False,
    offline: bool = False,
    listing: Manifest | None = None,
) -> FetchedDataset:
    """Prepare the dataset that the settings name, with the tokenizer of their model; verify it where it is there.

    A pinned commit that was prepared before needs no network. `check`, `offline` and `listing` as for `hub.fetch`.

    Raises what `hub.fetch` raises, and SetupError where the model's tokenizer is absent or the dataset another one.
    """
    path = prepared_path(settings)
    huggingface_hub_package()  # before anything else imports it: it is set up then
    try:
        model = find_snapshot(settings)
    except SetupError:
        if not check:
            raise
        model = None  # it would be fetched before
    tokenizer = tokenizer_sha256(model) if model else None
    record = sound(path)
    if record and record.tokenizer != tokenizer:
        record = None
    dataset, revision = settings.hf_cache_dataset, settings.hf_cache_dataset_revision
    commit = listing.commit if listing else revision if COMMIT.fullmatch(revision) else None
    if record and (record.commit == commit or (commit is None and offline)):
        return _unchanged(path, record)
    fetched = fetch(
        dataset,
        revision,
        Path(settings.hf_cache_dir),
        token,
        check=check,
        offline=offline,
        listing=listing,
        kind=DATASET,
    )
    if record and record.commit == fetched.commit:
        return _unchanged(path, record)
    if check or model is None or tokenizer is None:
        return FetchedDataset(
            True, str(path), commit=fetched.commit, snapshot=fetched.snapshot, missing=fetched.missing
        )
    made = _prepare(Path(str(fetched.snapshot)), model, path)
    record = PreparedRecord(
        sha256=made[0],
        prompts=made[1],
        dataset=dataset,
        commit=str(fetched.commit),
        model=settings.benchmark_model,
        tokenizer=tokenizer,
    )
    try:
        write_record(record_path(path), record)
    except OSError as error:
        raise disk_error(error, path) from None
    return FetchedDataset(True, str(path), record.sha256, record.prompts, record.commit, fetched.snapshot)


def _unchanged(path: Path, record: PreparedRecord) -> FetchedDataset:
    return FetchedDataset(False, str(path), record.sha256, record.prompts, record.commit)


def _prepare(snapshot: Path, model: Path, path: Path) -> tuple[str, int]:
    """Write the prompts of the snapshot to `path`, which appears whole or not at all; return SHA-256 and number."""
    digest, count = hashlib.sha256(), 0
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            for entry in _entries(snapshot, model):
                line = ("[\n" if count == 0 else ",\n") + json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
                digest.update(line.encode())
                file.write(line.encode())
                count += 1
            if count == 0:
                raise SetupError(f"The dataset in {snapshot} holds no article: hf_cache_dataset is not CNN/DailyMail.")
            digest.update(b"\n]\n")
            file.write(b"\n]\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return digest.hexdigest(), count


def _entries(snapshot: Path, model: Path) -> Iterator[dict[str, Any]]:
    """Yield what MLPerf's cnn_eval.json holds for each article, in the dataset's order."""
    tokenizer = load_tokenizer(model)
    for articles, summaries in _rows(snapshot):
        # Only the template is formatted: braces in an article stay what they are.
        texts = [TEMPLATE.format(input=article) for article in articles]
        # With special tokens, as the reference's `tokenizer.encode` adds them. Not truncated: nor does the reference.
        tokens = tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        for article, token_ids, summary in zip(articles, tokens, summaries, strict=True):
            yield {"input": article, "tok_input": token_ids, "output": summary}


def _rows(snapshot: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield articles and summaries, some hundred rows at a time."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SetupError(f"A package is missing ({error}): run playbooks/provision.yml.") from None
    files = [snapshot / n for n in DATASET.wanted(p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*"))]
    for path in files:
        try:
            for batch in ParquetFile(path).iter_batches(BATCH_ROWS, columns=[ARTICLE, SUMMARY]):
                columns = batch.to_pydict()
                articles, summaries = columns[ARTICLE], columns[SUMMARY]
                if not all(isinstance(text, str) for text in (*articles, *summaries)):
                    raise SetupError(f"{path} holds a row without text: hf_cache_dataset is not CNN/DailyMail.")
                yield articles, summaries
        except (ArrowException, KeyError) as error:
            raise SetupError(
                f"{path} is not a Parquet file with the columns {ARTICLE} and {SUMMARY} "
                f"({' '.join(str(error).split())}): hf_cache_dataset is not CNN/DailyMail."
            ) from None
