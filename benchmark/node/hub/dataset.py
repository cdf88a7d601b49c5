"""CNN/DailyMail validation, prepared as MLPerf does it for Llama-3.1-8B.

The Parquet files are fetched into the Hugging Face cache and verified, as a model's files are (`fetch.py`). The prompts
are made once from them and the model's tokenizer; a run reads them from one file.
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
# Rows to tokenise together: enough for the tokenizer's threads, few enough to need little memory.
BATCH_ROWS = 256


@dataclass(frozen=True)
class FetchedDataset:
    """The prepared file, and whether this call changed it (with `check`: would change it)."""

    changed: bool
    path: str
    sha256: str | None = None
    """None, like `prompts`: with `check`, it does not exist yet."""
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
    """Prepare the dataset of the settings, with the tokenizer of their model; if it exists, verify it.

    A pinned commit that was prepared before needs no network. `check`, `offline` and `listing` as for `hub.fetch`.

    Raises what `hub.fetch` raises, and SetupError if the model's tokenizer is absent or the dataset is a different one.
    """
    path = prepared_path(settings)
    huggingface_hub_package()  # sets it up before anything else imports it
    try:
        model = find_snapshot(settings)
    except SetupError:
        if not check:
            raise
        model = None  # it would be fetched first
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
    """Write the snapshot's prompts to `path`, atomically; return the SHA-256 and the number of prompts."""
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
                raise SetupError(f"The dataset in {snapshot} has no articles: hf_cache_dataset is not CNN/DailyMail.")
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
    """Yield the entries of MLPerf's cnn_eval.json, one per article, in the dataset's order."""
    tokenizer = load_tokenizer(model)
    for articles, summaries in _rows(snapshot):
        # Only the template is formatted: braces in an article are left unchanged.
        texts = [TEMPLATE.format(input=article) for article in articles]
        # With special tokens, as the reference's `tokenizer.encode` adds them; like there, not truncated.
        tokens = tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        for article, token_ids, summary in zip(articles, tokens, summaries, strict=True):
            yield {"input": article, "tok_input": token_ids, "output": summary}


def _rows(snapshot: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield articles and summaries, a few hundred rows at a time."""
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
