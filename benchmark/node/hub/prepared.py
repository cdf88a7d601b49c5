"""The place of a prepared CNN/DailyMail on a node, and whether it matches the settings.

    <hf_cache_dir>/llm-benchmark/datasets/cnn_dailymail-<hash>.json           list of {input, tok_input, output}
    <hf_cache_dir>/llm-benchmark/datasets/cnn_dailymail-<hash>.record.json    its SHA-256, and what it was made from

<hash> covers everything in the settings that affects it: dataset, revision, model, model revision and template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.canonical import canonical_sha256
from benchmark.files import file_sha256
from benchmark.settings import Settings
from benchmark.settings.measurement import is_directory_path

# The exact template of MLPerf's reference implementation for llama3.1-8b: another one would change the benchmark.
TEMPLATE = (
    "Summarize the following news article in 128 tokens. Please output the summary only, without any other text.\n\n"
    "Article:\n{input}\n\nSummary:"
)
# What determines the tokens of a text.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PreparedRecord(BaseModel):
    """What a prepared file was made from; written after it, so that a file without a sound record does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    sha256: Annotated[Sha256, Field(description="of the prepared file's bytes")]
    prompts: Annotated[int, Field(ge=1)]
    dataset: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="of the dataset's repository")]
    model: str
    tokenizer: Annotated[Sha256, Field(description="of the tokenizer's files")]


def prepared_path(settings: Settings) -> Path:
    """Return the path of the prepared file for these settings."""
    model, revision = settings.benchmark_model, settings.benchmark_model_revision
    if is_directory_path(model):
        model, revision = str(Path(model).expanduser().resolve()), ""
    key = canonical_sha256(
        [settings.hf_cache_dataset, settings.hf_cache_dataset_revision, model, revision, TEMPLATE],
    )
    cache = Path(settings.hf_cache_dir).expanduser().resolve()
    return cache / "llm-benchmark" / "datasets" / f"cnn_dailymail-{key[:16]}.json"


def record_path(prepared: Path) -> Path:
    """Return the path of the record beside a prepared file."""
    return prepared.with_suffix(".record.json")


def read_record(prepared: Path) -> PreparedRecord | None:
    """Return the record beside a prepared file; a damaged one counts as absent, as it can be made again."""
    try:
        return PreparedRecord.model_validate_json(record_path(prepared).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def sound(prepared: Path) -> PreparedRecord | None:
    """Return the record of a prepared file if its content matches; None: it must be prepared."""
    record = read_record(prepared)
    try:
        return record if record and file_sha256(prepared) == record.sha256 else None
    except OSError:
        return None


def tokenizer_sha256(snapshot: Path) -> str:
    """Return a hash of the tokenizer's files in a model's directory: another tokenizer gives other tokens."""
    files = [snapshot / name for name in TOKENIZER_FILES]
    return canonical_sha256({path.name: file_sha256(path) for path in files if path.is_file()})
