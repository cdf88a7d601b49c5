"""The log of answers: its hash, and what is left of it."""

import hashlib
from pathlib import Path

import pytest

from benchmark.audit import Verification
from benchmark.cluster.submission.logs import accuracy_text, verification_text, write_truncated
from benchmark.records import Rouge


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 9000, 200_000])
def test_a_log_keeps_its_first_and_last_4096_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(48, 58)) * (size // 10 + 1)
    (tmp_path / "log").write_bytes(content[:size])
    write_truncated(tmp_path / "log", tmp_path / "short")
    kept = (tmp_path / "short").read_bytes()
    if size < 4096:
        assert kept == content[:size]
    else:
        assert kept == content[:4096] + b"\n\n...\n\n" + content[size - 4096 : size]
    assert len(kept) <= 10 * 1024


def test_accuracy_txt_is_what_the_checkers_patterns_find(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"[]")
    rouge = Rouge(
        rouge1=38.7792, rouge2=15.9, rougeL=24.4957, rougeLsum=35.793, generated_characters=8167644, answers=13368,
        references=13368,
    )  # fmt: skip
    assert accuracy_text(rouge, tmp_path / "log").splitlines() == [
        "Results",
        "",
        "{'rouge1': 38.7792, 'rouge2': 15.9, 'rougeL': 24.4957, 'rougeLsum': 35.793, 'gen_len': 8167644, "
        "'gen_num': 13368}",
        "",
        f"hash={hashlib.sha256(b'[]').hexdigest()}",
    ]


@pytest.mark.parametrize(
    ("other_first", "unreported", "twice", "length", "lines"),
    [
        (0, 0, 0, 0, ("True", "True", "True", "complete")),
        (None, 0, 0, 0, ("Skipped", "True", "True", "complete")),
        (1, 0, 0, 0, ("False", "True", "True", "failed")),
        (0, 1, 0, 0, ("False", "True", "True", "failed")),
        (0, 0, 2, 0, ("True", "False", "True", "failed")),
        (None, 0, 0, 1, ("Skipped", "True", "False", "failed")),
    ],
)
def test_an_audit_is_reported_in_the_checkers_lines(
    other_first: int | None, unreported: int, twice: int, length: int, lines: tuple[str, ...]
) -> None:
    assert verification_text(Verification(3, (2,), other_first, unreported, twice, length)).splitlines() == [
        f"First token check pass: {lines[0]}",
        f"EOS check pass: {lines[1]}",
        f"Sample length check pass: {lines[2]}",
        f"TEST06 verification {lines[3]}",
    ]
