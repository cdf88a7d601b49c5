"""TEST06 as a submission holds it: the audit run's own answers are read, so that nobody has to be believed."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.files import MAX_LOG_BYTES, read_text

TOKEN_BYTES = 4
# What the reference's verification takes for the end of an answer, unless somebody gives it another.
END = 2


@dataclass(frozen=True)
class Verification:
    """The three checks. `first_token` is None where the scenario reports no first token."""

    first_token: bool | None
    end: bool
    length: bool

    @property
    def passed(self) -> bool:
        """Whether the audit passes."""
        return self.first_token is not False and self.end and self.length

    @property
    def text(self) -> str:
        """verify_accuracy.txt: what the submission checker looks for, line by line."""
        first = "Skipped" if self.first_token is None else self.first_token
        return (
            f"First token check pass: {first}\n"
            f"EOS check pass: {self.end}\n"
            f"Sample length check pass: {self.length}\n"
            f"TEST06 verification {'complete' if self.passed else 'failed'}\n"
        )

    @property
    def faults(self) -> list[str]:
        """What does not pass, in words."""
        checks = {
            "a first token that is not the answer's": self.first_token is False,
            "an answer that ends more than once": not self.end,
            "a number of tokens that is not the answer's": not self.length,
        }
        return [words for words, failed in checks.items() if failed]


def verify(log: Path, scenario: str) -> Verification:
    """Return what the answers in mlperf_log_accuracy.json amount to; `scenario` is the submission's name for it.

    Raises InputError where the log cannot be read.
    """
    try:
        answers = json.loads(read_text(log, MAX_LOG_BYTES))
        if not isinstance(answers, list) or not answers:
            raise ValueError
        tokens = [_tokens(answer["data"]) for answer in answers]
        counts = [int(answer["token_count"]) for answer in answers]
        firsts = [] if scenario == "Offline" else [_tokens(answer["token_data"]) for answer in answers]
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        raise InputError(f"{log}: not LoadGen's log of an audit's answers.") from None
    return Verification(
        # A first token that was not told agrees with every answer in the reference's eyes; not in ours.
        first_token=None if scenario == "Offline" else all(map(_begins, tokens, firsts)),
        end=not any(_ends_twice(each) for each in tokens),
        length=all(len(each) == count for each, count in zip(tokens, counts, strict=True)),
    )


def _tokens(data: Any) -> tuple[int, ...]:
    raw = bytes.fromhex(data)
    return struct.unpack(f"<{len(raw) // TOKEN_BYTES}i", raw)


def _begins(answer: Sequence[int], first: Sequence[int]) -> bool:
    return bool(first) and tuple(answer[: len(first)]) == tuple(first)


def _ends_twice(answer: Sequence[int]) -> bool:
    """Tell whether the last two tokens end it; an answer's very first token is not looked at, as in the reference."""
    return len(answer) > 2 and answer[-1] == answer[-2] == END
