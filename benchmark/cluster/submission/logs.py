"""LoadGen's logs of answers in a submission: their results, and only both ends of a long log."""

from __future__ import annotations

from pathlib import Path

from benchmark.audit import Verification
from benchmark.files import file_sha256
from benchmark.records import Rouge

# Bytes at either end that a truncated log keeps; a shorter log is kept in full.
KEPT = 4096
GAP = b"\n\n...\n\n"


def write_truncated(source: Path, target: Path) -> None:
    """Write the log's first and last bytes. Raises OSError if one of the files cannot be opened."""
    with source.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(0)
        if size < KEPT:
            target.write_bytes(log.read())
            return
        start = log.read(KEPT)
        log.seek(size - KEPT)
        target.write_bytes(start + GAP + log.read(KEPT))


def accuracy_text(rouge: Rouge | None, log: Path) -> str:
    """Return accuracy.txt: the scores as MLPerf's evaluation prints them, and the SHA-256 of the whole log."""
    lines = ["Results", ""]
    if rouge is not None:
        scores = {
            "rouge1": rouge.rouge1,
            "rouge2": rouge.rouge2,
            "rougeL": rouge.rougeL,
            "rougeLsum": rouge.rougeLsum,
            "gen_len": rouge.generated_characters,
            "gen_num": rouge.answers,
        }
        lines.append(repr(scores))
    return "\n".join([*lines, "", f"hash={file_sha256(log)}", ""])


def verification_text(found: Verification) -> str:
    """Return verify_accuracy.txt: the lines that the submission checker looks for."""
    first = "Skipped" if found.first_token is None else found.first_token
    return (
        f"First token check pass: {first}\n"
        f"EOS check pass: {found.end}\n"
        f"Sample length check pass: {found.length}\n"
        f"TEST06 verification {'complete' if found.passed else 'failed'}\n"
    )
