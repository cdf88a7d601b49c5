"""MLPerf's compliance test TEST06: whether the tokens that LoadGen was told of are those that were generated.

The audit run is a performance run of some hundred queries whose answers LoadGen logs. The rules are those of the
reference's own script, with the model's own ends of a sequence beside the one that it assumes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import ne
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
# What the reference's script takes for the end of a sequence where it is not told: Llama 2's.
DEFAULT_END = 2
_TOKEN_BYTES = 4
# What LoadGen reads beside its own configuration for the test: a hundred queries of no least duration, and the answers
# of a hundred of them logged.
_SETTINGS = {
    "mode": 2,
    "accuracy_log_rng_seed": 720381539243781796,
    "accuracy_log_sampling_target": 100,
    "min_query_count": 100,
    "min_duration": 0,
    "sample_concatenate_permutation": 0,
}


def audit_config() -> str:
    """Return the configuration file that makes LoadGen's run the test's."""
    return "".join(f"*.*.{name} = {value}\n" for name, value in _SETTINGS.items())


@dataclass(frozen=True)
class _Logged:
    """One answer of the audit run: its token ids, those told with the first token, and how many LoadGen was told of.

    None in the place of the first: LoadGen writes nothing of it in Offline.
    """

    token_ids: tuple[int, ...]
    first: tuple[int, ...] | None
    count: int


def judge_audit(directory: Path, loadgen: LoadGenResult, ends: Iterable[int]) -> Audit:
    """Return what the answers in the audit run's log come to; `ends` are the model's tokens that end a sequence.

    Raises InputError where the log is absent or not one of such a run.
    """
    answers = _read(directory / f"{AUDIT_PREFIX}{ANSWERS}")
    end_tokens = tuple(sorted({DEFAULT_END, *ends}))
    offline = loadgen.scenario == "Offline"
    wrong_first = sum(answer.first is None or any(map(ne, answer.first, answer.token_ids)) for answer in answers)
    unknown_first = sum(answer.first == () for answer in answers)
    ended_twice = sum(any(_ends_twice(answer.token_ids, end) for end in end_tokens) for answer in answers)
    wrong_length = sum(len(answer.token_ids) != answer.count for answer in answers)
    first = _sentence("First token", wrong_first, len(answers), "begin with another token than LoadGen was told of")
    if offline:
        first = "First token: skipped, LoadGen is not told of it in Offline."
    elif unknown_first:
        first += f" Of {unknown_first} LoadGen was told no first token's id, so there was nothing to compare."
    return Audit(
        name=TEST06,
        passed=not (ended_twice or wrong_length or (wrong_first and not offline)),
        checks=(
            first,
            _sentence(
                "End of sequence", ended_twice, len(answers), "end with more than one token that ends a sequence"
            ),
            _sentence("Length", wrong_length, len(answers), "have another number of tokens than LoadGen was told of"),
        ),
        answers=len(answers),
        end_tokens=end_tokens,
        loadgen=loadgen,
    )


def _ends_twice(token_ids: Sequence[int], end: int) -> bool:
    # As the reference counts: the answer's first token is never taken for an end.
    return len(token_ids) > 2 and token_ids[-1] == token_ids[-2] == end


def _sentence(what: str, wrong: int, of: int, fault: str) -> str:
    return f"{what}: {'pass' if not wrong else 'FAIL'}, {wrong} of {of} answers {fault}."


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
