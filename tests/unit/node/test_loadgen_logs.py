"""LoadGen's logs: what is read of them, its errors, and those that are not to be believed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.loadgen_log import read_result
from tests.unit.node.loadgen_runs import measure


def test_a_log_that_loadgen_did_not_end_is_a_sentence(tmp_path: Path) -> None:
    measure(tmp_path)
    path = tmp_path / "mlperf_log_detail.txt"
    text = path.read_text()
    path.write_text(text[: text.index("result_validity")])
    with pytest.raises(InputError, match="not an entry of LoadGen's log"):
        read_result(tmp_path)
    kept = [line for line in text.splitlines() if "num_errors" not in line]
    path.write_text("\n".join(line for line in kept if "result_completed_tokens_per_second" not in line))
    with pytest.raises(InputError, match="LoadGen did not finish its log"):
        read_result(tmp_path)
    # LoadGen counts its errors since April 2025.
    path.write_text("\n".join(kept))
    assert read_result(tmp_path).valid is False


def marked(line: str, **changes: Any) -> str:
    entry = json.loads(line.removeprefix(":::MLLOG "))
    return ":::MLLOG " + json.dumps(entry | changes)


def test_logs_of_others_are_read_as_mlcommons_reads_them(tmp_path: Path) -> None:
    measure(tmp_path)
    own = read_result(tmp_path)
    path = tmp_path / "mlperf_log_detail.txt"
    lines = path.read_text().splitlines()
    (qps,) = (line for line in lines if "result_completed_samples_per_sec" in line)
    # Of a key that comes twice the first counts.
    path.write_text("\n".join([*lines, marked(qps, value=1e9)]))
    assert read_result(tmp_path) == own
    # An ordinary line that is marked as an error is one, and a figure all the same.
    path.write_text("\n".join(line.replace('"is_error": false', '"is_error": true') for line in lines))
    others = read_result(tmp_path)
    assert others.results == own.results
    assert others.settings == own.settings
    assert others.error_count > len(others.errors) == 100
    path.write_text(
        "\n".join(marked(line, value="MultiStream") if '"effective_scenario"' in line else line for line in lines)
    )
    with pytest.raises(InputError, match="its scenario is MultiStream, but only Server, Offline, SingleStream"):
        read_result(tmp_path)


def test_every_error_of_loadgen_is_a_reason(tmp_path: Path) -> None:
    # More answers of one token than errors are kept.
    few = {"max_new_tokens": 1, "min_new_tokens": 0}
    options = {"scenario": "Server", "min_duration_ms": 100, "min_query_count": 120}
    result = measure(tmp_path, {"generation": few, "scenario_options": options}, benchmark_target_qps=400)
    log = (tmp_path / "mlperf_log_detail.txt").read_text()
    logged = re.search(r'"num_errors", "value": (\d+)', log)
    assert logged is not None
    assert result.loadgen is not None
    assert result.loadgen.error_count == int(logged[1]) >= 120
    assert result.verdict is not None
    assert not result.verdict.valid
    (reason,) = (reason for reason in result.verdict.reasons if reason.startswith("LoadGen: no errors: no."))
    assert f"{logged[1]} errors in all" in reason
    assert result.metrics is not None
    assert result.metrics.tpot_ms is None


def test_an_answer_of_one_token_is_not_reported_as_fine(tmp_path: Path) -> None:
    result = measure(tmp_path, {"generation": {"max_new_tokens": 1, "min_new_tokens": 1}})
    assert result.loadgen is not None
    assert result.loadgen.errors
    assert result.verdict is not None
    assert any(reason.startswith("LoadGen: no errors: no.") for reason in result.verdict.reasons)
    assert result.metrics is not None
    assert result.metrics.tpot_ms is None
