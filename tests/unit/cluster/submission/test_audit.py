"""TEST06's three checks, on logs as LoadGen writes them."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.submission.audit import verify
from benchmark.errors import InputError


def hexadecimal(*tokens: int) -> str:
    return struct.pack(f"<{len(tokens)}i", *tokens).hex().upper()


def answer(tokens: tuple[int, ...], first: tuple[int, ...] | None = None, count: int | None = None) -> dict[str, Any]:
    told = {} if first is None else {"token_data": hexadecimal(*first)}
    count = len(tokens) if count is None else count
    return {"seq_id": 0, "qsl_idx": 3, "data": hexadecimal(*tokens), "token_count": count, **told}


@pytest.mark.parametrize(
    ("answers", "scenario", "lines"),
    [
        ([answer((5, 6, 2), (5,))], "Server", ("True", "True", "True")),
        ([answer((5, 6, 2))], "Offline", ("Skipped", "True", "True")),
        ([answer((5, 6), (5,)), answer((5, 6), (6,))], "Interactive", ("False", "True", "True")),
        ([answer((5, 6), ())], "SingleStream", ("False", "True", "True")),
        ([answer((5, 2, 2), (5,))], "Server", ("True", "False", "True")),
        ([answer((2, 2), (2,))], "Server", ("True", "True", "True")),  # the reference does not look at the first token
        ([answer((5, 6), (5,), count=3)], "Server", ("True", "True", "False")),
    ],
)
def test_each_check(tmp_path: Path, answers: list[Any], scenario: str, lines: tuple[str, str, str]) -> None:
    (tmp_path / "log.json").write_text(json.dumps(answers))
    verification = verify(tmp_path / "log.json", scenario)
    assert verification.passed is ("False" not in lines)
    assert verification.text.splitlines() == [
        f"First token check pass: {lines[0]}",
        f"EOS check pass: {lines[1]}",
        f"Sample length check pass: {lines[2]}",
        f"TEST06 verification {'complete' if verification.passed else 'failed'}",
    ]
    assert len(verification.faults) == lines.count("False")


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"data": "05"}]', '[{"data": "zz", "token_count": 1}]', "[1"])
def test_what_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(InputError, match="not LoadGen's log of an audit's answers"):
        verify(tmp_path / "log.json", "Offline")
