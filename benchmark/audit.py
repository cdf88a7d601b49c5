"""MLPerf's compliance test TEST06: whether the tokens that LoadGen was told of are those that were generated.

The audit run is a performance run of some hundred queries whose answers LoadGen logs. Both halves judge it here: the
node for its result, the controller again, and for the submission. The rules are the reference's own script's, and ours
are stricter in three things that it lets pass: a first token that LoadGen was never told of, an answer of no token at
all (its query failed), and two of the model's own ends of a sequence beside the one that the script assumes.
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
# Before the names of the audit run's files.
AUDIT_PREFIX = f"{TEST06}_"
AUDIT_QUERIES = 100
# What the reference's script takes for the end of a sequence where it is not reported: Llama 2's.
DEFAULT_END = 2
_TOKEN_BYTES = 4
_PERFORMANCE = 2
# What LoadGen reads beside its own configuration for the test: a hundred queries of no least duration, and the answers
# of a hundred of them logged.
_SETTINGS = {
    "mode": _PERFORMANCE,
    "accuracy_log_rng_seed": 720381539243781796,
    "accuracy_log_sampling_target": 100,
    "min_query_count": AUDIT_QUERIES,
    "min_duration": 0,
    "sample_concatenate_permutation": 0,
}
# Where LoadGen's log has another name, or another word, for what its configuration says.
_LOGGED = {"mode": ("test_mode", "PerformanceOnly"), "min_duration": ("min_duration_ms", 0)}


def audit_config() -> str:
    """Return the configuration file that makes LoadGen's run the test's."""
    return "".join(f"*.*.{name} = {value}\n" for name, value in _SETTINGS.items())


def unlike_config(loadgen: LoadGenResult) -> list[str]:
    """Return in what the settings that LoadGen logged of an audit run differ from the test's, a few words each."""
    settings = loadgen.settings
    expected = dict(_LOGGED.get(name, (name, value)) for name, value in _SETTINGS.items())
    if loadgen.scenario == "Offline":
        del expected["min_query_count"]  # one query there, whatever a configuration says
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
    """What was taken for the end of a sequence."""
    other_first: int | None
    """That begin with another token than LoadGen was told of; None: LoadGen is not told of it in Offline."""
    unreported_first: int
    """Of whose first token LoadGen was told nothing, where it is to be."""
    ended_twice: int
    other_length: int
    """That have another number of tokens than LoadGen was told of, or none."""

    @property
    def first_token(self) -> bool | None:
        """Whether every answer begins as LoadGen was told; None where there is nothing to check."""
        return None if self.other_first is None else not self.other_first + self.unreported_first

    @property
    def end(self) -> bool:
        """Whether every answer ends once at most."""
        return not self.ended_twice

    @property
    def length(self) -> bool:
        """Whether every answer has as many tokens as LoadGen was told of."""
        return not self.other_length

    @property
    def passed(self) -> bool:
        """Whether the audit passes."""
        return self.first_token is not False and self.end and self.length

    @property
    def checks(self) -> tuple[str, ...]:
        """Each rule and how many answers broke it, a sentence each."""
        if self.other_first is None:
            first = "First token: skipped, LoadGen is not told of it in Offline."
        else:
            fault = "begin with another token than LoadGen was told of"
            if self.unreported_first:
                fault += f"; of {self.unreported_first} LoadGen was told no first token, which the reference lets pass"
            first = self._sentence("First token", self.first_token is True, self.other_first, fault)
        return (
            first,
            self._sentence(
                "End of sequence", self.end, self.ended_twice, "end with more than one token that ends a sequence"
            ),
            self._sentence(
                "Length",
                self.length,
                self.other_length,
                "have no token, or not as many as LoadGen was told of",
            ),
        )

    def _sentence(self, what: str, passed: bool, wrong: int, fault: str) -> str:
        return f"{what}: {'pass' if passed else 'FAIL'}, {wrong} of {self.answers} answers {fault}."


def verify_audit(directory: Path, loadgen: LoadGenResult, ends: Iterable[int]) -> Verification:
    """Return what the answers in the audit run's log come to; `ends` are the model's tokens that end a sequence.

    Raises InputError where the log is absent or not one of such a run.
    """
    answers = _read(directory / f"{AUDIT_PREFIX}{ANSWERS}")
    end_tokens = tuple(sorted({DEFAULT_END, *ends}))
    offline = loadgen.scenario == "Offline"
    # Without the field LoadGen logged no first token at all: another scenario's log, which the reference fails too.
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
    """Return `verify_audit` as a result has it. Raises InputError as that does."""
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
    """One answer of the audit run: its token ids, those told with the first token, and how many LoadGen was told of.

    None in the place of the first: LoadGen writes nothing of it in Offline.
    """

    token_ids: tuple[int, ...]
    first: tuple[int, ...] | None
    count: int


def _ends_twice(token_ids: Sequence[int], end: int) -> bool:
    # As the reference counts: the answer's first token is never taken for an end.
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
                f"{path}: entry {position} (from 0) has not data and token_count as LoadGen writes them, of "
                "32-bit token ids."
            ) from None
    return found


def _tokens(text: Any) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return struct.unpack(f"<{len(data) // _TOKEN_BYTES}i", data)
