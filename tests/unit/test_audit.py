"""TEST06's rules, on logs written as LoadGen writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.audit import judge_audit
from benchmark.errors import InputError
from benchmark.records import LoadGenResult


def logged(token_ids: list[int], first: list[int] | None = None, count: int | None = None) -> dict[str, Any]:
    given = token_ids[:1] if first is None else first
    return {
        "qsl_idx": 0,
        "data": np.array(token_ids, np.int32).tobytes().hex().upper(),
        "token_data": np.array(given, np.int32).tobytes().hex().upper(),
        "token_count": len(token_ids) if count is None else count,
    }


def judged(directory: Path, entries: list[dict[str, Any]], scenario: str = "Server") -> tuple[bool, tuple[str, ...]]:
    (directory / "TEST06_mlperf_log_accuracy.json").write_text(json.dumps(entries))
    loadgen = LoadGenResult.model_validate({"scenario": scenario, "mode": "PerformanceOnly"})
    audit = judge_audit(directory, loadgen, [128009])
    return audit.passed, audit.checks


SOUND = [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("entry", "scenario", "failing"),
    [
        (logged(SOUND), "Server", None),
        (logged([5, 6, 128009]), "Server", None),
        (logged([5, 6, 128009, 128009]), "Server", "End of sequence"),
        # What the reference's script takes for the end where it is not told.
        (logged([5, 6, 2, 2]), "Server", "End of sequence"),
        # It never looks at the first token.
        (logged([2, 2]), "Server", None),
        (logged(SOUND, first=[6]), "Server", "First token"),
        (logged(SOUND, first=[6]), "SingleStream", "First token"),
        (logged(SOUND, first=[6]), "Offline", None),
        (logged(SOUND, count=3), "Offline", "Length"),
        (logged([], first=[], count=1), "Server", "Length"),
        # LoadGen writes nothing of the first token where it was told of none.
        ({key: value for key, value in logged(SOUND).items() if key != "token_data"}, "Offline", None),
        ({key: value for key, value in logged(SOUND).items() if key != "token_data"}, "Server", "First token"),
    ],
)
def test_an_answer_breaks_the_rule_that_it_breaks(
    tmp_path: Path, entry: dict[str, Any], scenario: str, failing: str | None
) -> None:
    passed, checks = judged(tmp_path, [logged(SOUND), entry], scenario)
    assert passed is (failing is None)
    assert [check.partition(":")[0] for check in checks if ": FAIL, 1 of 2 answers" in check] == (
        [failing] if failing else []
    )


def test_a_first_token_of_which_nothing_was_told_is_said_though_the_reference_lets_it_pass(tmp_path: Path) -> None:
    passed, checks = judged(tmp_path, [logged(SOUND, first=[])])
    assert passed
    assert "Of 1 LoadGen was told no first token's id, so there was nothing to compare." in checks[0]


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", "[1]", '[{"data": "0"}]', '[{"qsl_idx": 0, "data": "05"}]'])
def test_what_is_no_such_log_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "TEST06_mlperf_log_accuracy.json").write_text(content)
    loadgen = LoadGenResult.model_validate({"scenario": "Server", "mode": "PerformanceOnly"})
    with pytest.raises(InputError, match=r"TEST06_mlperf_log_accuracy\.json"):
        judge_audit(tmp_path, loadgen, [])
