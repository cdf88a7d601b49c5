"""TEST06's rules, on logs written as LoadGen writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.audit import audit_config, judge_audit, unlike_config, verify_audit
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
        # What the reference's script takes for the end where it is not reported.
        (logged([5, 6, 2, 2]), "Server", "End of sequence"),
        # It never looks at the first token.
        (logged([2, 2]), "Server", None),
        (logged(SOUND, first=[6]), "Server", "First token"),
        (logged(SOUND, first=[6]), "SingleStream", "First token"),
        (logged(SOUND, first=[6]), "Offline", None),
        (logged(SOUND, count=3), "Offline", "Length"),
        # The reference passes the three that follow.
        (logged(SOUND, first=[]), "Server", "First token"),
        (logged(SOUND, first=[*SOUND, 9]), "Server", "First token"),
        (logged([], count=0), "Offline", "Length"),
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
    assert [check.partition(":")[0] for check in checks if ": FAIL" in check] == ([failing] if failing else [])


def test_a_wrong_first_token_differs_from_one_never_reported(tmp_path: Path) -> None:
    passed, checks = judged(tmp_path, [logged(SOUND), logged(SOUND, first=[]), logged(SOUND, first=[6])])
    assert not passed
    assert checks[0] == (
        "First token: FAIL, 1 of 3 answers begin with another token than was reported to LoadGen; for 1 none was "
        "reported, which the reference lets pass."
    )


def test_a_failed_query_breaks_two_rules(tmp_path: Path) -> None:
    _, checks = judged(tmp_path, [logged(SOUND), logged([], first=[], count=0)])
    assert [": FAIL" in check for check in checks] == [True, False, True]


def test_the_result_says_what_was_verified(tmp_path: Path) -> None:
    (tmp_path / "TEST06_mlperf_log_accuracy.json").write_text(json.dumps([logged([5, 9, 9]), logged(SOUND)]))
    loadgen = LoadGenResult.model_validate({"scenario": "Server", "mode": "PerformanceOnly"})
    found, audit = verify_audit(tmp_path, loadgen, [9]), judge_audit(tmp_path, loadgen, [9])
    assert (found.first_token, found.end, found.length) == (True, False, True)
    assert (audit.passed, audit.checks, audit.answers) == (found.passed, found.checks, 2)
    assert audit.end_tokens == found.end_tokens == (2, 9)


def test_a_run_under_other_settings_than_the_tests_is_reported() -> None:
    reported = {
        "test_mode": "PerformanceOnly",
        "accuracy_log_rng_seed": 720381539243781796,
        "accuracy_log_sampling_target": 100,
        "min_query_count": 100,
        "min_duration_ms": 0,
        "sample_concatenate_permutation": False,
    }

    def unlike(scenario: str = "Server", **changes: Any) -> list[str]:
        fields = {"scenario": scenario, "mode": "PerformanceOnly", "settings": {**reported, **changes}}
        return unlike_config(LoadGenResult.model_validate(fields))

    assert unlike() == unlike("Offline", min_query_count=1) == []
    assert unlike(min_query_count=1) == ["min_query_count 1 instead of 100"]
    assert unlike(min_duration_ms=600_000) == ["min_duration_ms 600000 instead of 0"]
    del reported["accuracy_log_rng_seed"]
    assert unlike() == ["accuracy_log_rng_seed not reported instead of 720381539243781796"]
    assert "*.*.accuracy_log_rng_seed = 720381539243781796\n" in audit_config()


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", "[1]", '[{"data": "0"}]', '[{"qsl_idx": 0, "data": "05"}]'])
def test_what_is_no_such_log_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "TEST06_mlperf_log_accuracy.json").write_text(content)
    loadgen = LoadGenResult.model_validate({"scenario": "Server", "mode": "PerformanceOnly"})
    with pytest.raises(InputError, match=r"TEST06_mlperf_log_accuracy\.json"):
        judge_audit(tmp_path, loadgen, [])
