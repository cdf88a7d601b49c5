"""MLPerf's compliance test TEST06: whether the tokens reported to LoadGen are those that were generated.

The audit run is a performance run of some hundred queries whose answers LoadGen logs. It is judged here by the node,
again by the controller, and for a submission. The rules are those of the reference's script, and stricter in three
cases that it lets pass: a first token that was never reported to LoadGen, an answer without any token (its query
failed), and two end-of-sequence tokens of the model besides the one that the script assumes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.files import MAX_LOG_BYTES, read_text
from benchmark.loadgen_log import ANSWERS
from benchmark.records import Audit, LoadGenResult

AUDIT_CONFIG = "audit.config"
TEST06 = "TEST06"
# Prefix of the audit run's files.
AUDIT_PREFIX = f"{TEST06}_"
AUDIT_QUERIES = 100
# The end-of-sequence token that the reference's script assumes if none is reported: Llama 2's.
DEFAULT_END = 2
_TOKEN_BYTES = 4
_PERFORMANCE = 2
# LoadGen's settings for the test: a hundred queries without a minimum duration, and a hundred answers logged.
_SETTINGS = {
    "mode": _PERFORMANCE,
    "accuracy_log_rng_seed": 720381539243781796,
    "accuracy_log_sampling_target": 100,
    "min_query_count": AUDIT_QUERIES,
    "min_duration": 0,
    "sample_concatenate_permutation": 0,
}
# Settings with another name, or another value, in LoadGen's log than in its configuration.
_LOGGED = {"mode": ("test_mode", "PerformanceOnly"), "min_duration": ("min_duration_ms", 0)}


def audit_config() -> str:
    """Return LoadGen's configuration file for the test."""
    return "".join(f"*.*.{name} = {value}\n" for name, value in _SETTINGS.items())


def unlike_config(loadgen: LoadGenResult) -> list[str]:
    """Return how the logged settings of an audit run differ from the test's, a few words each."""
    settings = loadgen.settings
    expected = dict(_LOGGED.get(name, (name, value)) for name, value in _SETTINGS.items())
    if loadgen.scenario == "Offline":
        del expected["min_query_count"]  # always one query, whatever a configuration says
    return [
        f"{name} {settings.get(name, 'not reported')} instead of {value}"
        for name, value in expected.items()
        if settings.get(name) != value
    ]


@dataclass(frozen=True)
class Verification:
    """How many of the logged answers break each of the three rules."""

    answers: int
    end_tokens: tuple[int, ...]
    """The tokens that count as the end of a sequence."""
    other_first: int | None
    """Answers whose first token differs from the reported one; None: it is not reported in Offline."""
    unreported_first: int
    """Answers whose first token was not reported although it should be."""
    ended_twice: int
    other_length: int
    """Answers without tokens, or with another number of tokens than reported."""

    @property
    def first_token(self) -> bool | None:
        """Whether every answer begins with the reported token; None if there is nothing to check."""
        return None if self.other_first is None else not self.other_first + self.unreported_first

    @property
    def end(self) -> bool:
        """Whether every answer has at most one end-of-sequence token."""
        return not self.ended_twice

    @property
    def length(self) -> bool:
        """Whether every answer has the reported number of tokens."""
        return not self.other_length

    @property
    def passed(self) -> bool:
        """Whether the audit passes."""
        return self.first_token is not False and self.end and self.length

    @property
    def checks(self) -> tuple[str, ...]:
        """Each rule and how many answers broke it, a sentence each."""
        if self.other_first is None:
            first = "First token: skipped, it is not reported to LoadGen in Offline."
        else:
            fault = "begin with another token than was reported to LoadGen"
            if self.unreported_first:
                fault += f"; for {self.unreported_first} none was reported, which the reference lets pass"
            first = self._sentence("First token", self.first_token is True, self.other_first, fault)
        return (
            first,
            self._sentence(
                "End of sequence", self.end, self.ended_twice, "end with more than one end-of-sequence token"
            ),
            self._sentence(
                "Length",
                self.length,
                self.other_length,
                "have no token, or not as many as were reported to LoadGen",
            ),
        )

    def _sentence(self, what: str, passed: bool, wrong: int, fault: str) -> str:
        return f"{what}: {'pass' if passed else 'FAIL'}, {wrong} of {self.answers} answers {fault}."


def verify_audit(directory: Path, loadgen: LoadGenResult, ends: Iterable[int]) -> Verification:
    """Judge the answers in the audit run's log; `ends`: the model's end-of-sequence tokens.

    Raises InputError if the log is missing or not that of an audit run.
    """
    answers = _read(directory / f"{AUDIT_PREFIX}{ANSWERS}")
    end_tokens = tuple(sorted({DEFAULT_END, *ends}))
    offline = loadgen.scenario == "Offline"
    # A log without the field is another scenario's, without first tokens; the reference fails it too.
    other = sum(one.first is None or one.token_ids[: len(one.first)] != one.first for one in answers)
    return Verification(
        answers=len(answers),
        end_tokens=end_tokens,
        other_first=None if offline else other,
        unreported_first=0 if offline else sum(one.first == () for one in answers),
        ended_twice=sum(any(_ends_twice(one.token_ids, end) for end in end_tokens) for one in answers),
        other_length=sum(len(one.token_ids) != one.count or not one.count for one in answers),
    )


def judge_audit(directory: Path, loadgen: LoadGenResult, ends: Iterable[int]) -> Audit:
    """Return `verify_audit` as a record for a result. Raises InputError like it."""
    found = verify_audit(directory, loadgen, ends)
    return Audit(
        name=TEST06,
        passed=found.passed,
        checks=found.checks,
        answers=found.answers,
        end_tokens=found.end_tokens,
        loadgen=loadgen,
    )


@dataclass(frozen=True)
class _Logged:
    """One answer of the audit run: its token ids, those reported as the first token, and the reported number.

    The first ones are None in Offline, where LoadGen does not log them.
    """

    token_ids: tuple[int, ...]
    first: tuple[int, ...] | None
    count: int


def _ends_twice(token_ids: Sequence[int], end: int) -> bool:
    # Like the reference: an answer's first token never counts as an end.
    return len(token_ids) > 2 and token_ids[-1] == token_ids[-2] == end


def _read(path: Path) -> list[_Logged]:
    try:
        entries = json.loads(read_text(path, MAX_LOG_BYTES))
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON: LoadGen was stopped before it had written all answers.") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} holds no answer: LoadGen was not run for an audit, or every query failed.")
    found = []
    for position, entry in enumerate(entries):
        try:
            first = _tokens(entry["token_data"]) if "token_data" in entry else None
            found.append(_Logged(_tokens(entry["data"]), first, int(entry["token_count"])))
        except (KeyError, TypeError, ValueError, struct.error):
            raise InputError(
                f"{path}: entry {position} (from 0) lacks data and token_count as LoadGen writes them, with 32-bit "
                "token ids."
            ) from None
    return found


def _tokens(text: Any) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return struct.unpack(f"<{len(data) // _TOKEN_BYTES}i", data)
