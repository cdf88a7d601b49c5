"""Read the logs of MLCommons LoadGen, on the node and again on the controller.

mlperf_log_detail.txt has lines of ":::MLLOG " and a JSON object with key, value and metadata; its figures have six
digits. mlperf_log_summary.txt has lines of "label : value" with rounded values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.files import MAX_LOG_BYTES, read_text
from benchmark.records import LoadGenResult

LOG_PREFIX = "mlperf_log_"
DETAIL, SUMMARY, ANSWERS = f"{LOG_PREFIX}detail.txt", f"{LOG_PREFIX}summary.txt", f"{LOG_PREFIX}accuracy.json"
# Prefix of these names in a run for accuracy.
SOLO = "solo_"
ACCURACY = "accuracy_"
MARK = ":::MLLOG "
# The conditions of LoadGen's verdict, by their keys.
CONSTRAINTS = {
    "result_perf_constraints_met": "performance constraints satisfied",
    "result_min_duration_met": "min duration satisfied",
    "result_min_queries_met": "min queries satisfied",
    "early_stopping_met": "early stopping satisfied",
}
SCENARIOS = ("Server", "Offline", "SingleStream")
# Labels in the summary -> keys of the same figures in the detailed log.
LAST_FIGURES = {
    "99.90 percentile latency (ns)": "result_99.90_percentile_latency_ns",
    "99.90 percentile first token latency (ns)": "result_first_token_99.90_percentile_latency_ns",
    "99.90 percentile time to output token (ns)": "result_time_per_output_token_99.90_percentile_ns",
    "Tokens per second": "result_tokens_per_second",
    "Completed tokens per second": "result_completed_tokens_per_second",
}
# How many of LoadGen's error messages are kept.
KEPT_ERRORS = 100
# LoadGen logs only the requested values of these.
LIMITS = ("requested_server_ttft_latency", "requested_server_tpot_latency")
REASONS = ("result_invalid_reason", "early_stopping_result", "early_stopping_ttft_result", "early_stopping_tpot_result")


def read_result(directory: Path, prefix: str = "") -> LoadGenResult:
    """Return LoadGen's own figures and verdict from the logs whose names begin with `prefix`.

    Raises InputError if a log is missing, truncated, damaged or not LoadGen's.
    """
    path = directory / f"{prefix}{DETAIL}"
    summary = _summary(directory / f"{prefix}{SUMMARY}")
    values: dict[str, Any] = {}
    errors: list[str] = []
    for key, value, is_error in _entries(path):
        if is_error:
            errors.append(f"{key}: {value}"[:4000])
        # Ordinary lines may be marked as errors too. The first of several counts, as in MLCommons' own reader.
        values.setdefault(key, value)
    if "effective_scenario" not in values or not _has_ended(values, summary):
        raise InputError(f"{path}: LoadGen did not finish its log.")
    if values["effective_scenario"] not in SCENARIOS:
        raise InputError(
            f"{path}: its scenario is {str(values['effective_scenario'])[:100]}, but only {', '.join(SCENARIOS)} can "
            "be read."
        )
    validity = values.get("result_validity")
    invalid = validity == "INVALID"
    try:
        return LoadGenResult(
            version=str(values.get("loadgen_version", "")),
            scenario=values["effective_scenario"],
            mode=str(values["effective_test_mode"]),
            valid=None if validity is None else validity == "VALID",
            constraints={name: bool(values[key]) for key, name in CONSTRAINTS.items() if key in values},
            reasons=tuple(_sentence(values[key]) for key in REASONS if invalid and _sentence(values.get(key, ""))),
            results={key: _finite(value) for key, value in values.items() if key.startswith(("result_", "generated_"))},
            summary=summary,
            settings={
                key.removeprefix("effective_"): value for key, value in values.items() if key.startswith("effective_")
            },
            errors=tuple(errors[:KEPT_ERRORS]),
            error_count=len(errors),
        )
    except (KeyError, ValueError) as fault:
        raise InputError(f"{path}: not LoadGen's log: {' '.join(str(fault).split())[:300]}.") from None


def _has_ended(values: dict[str, Any], summary: dict[str, str]) -> bool:
    """Return whether LoadGen finished its log.

    In accuracy mode there is no result, and the end of the queries comes last. Otherwise the error count comes last;
    before April 2025 there was none, and the last figures came last.
    """
    if values.get("effective_test_mode") == "AccuracyOnly":
        return "power_end" in values
    if "num_errors" in values:
        return True
    return "result_validity" in values and all(key in values for label, key in LAST_FIGURES.items() if label in summary)


def _summary(path: Path) -> dict[str, str]:
    """Return the labels and values of the summary, up to where it repeats the settings."""
    reported: dict[str, str] = {}
    for line in read_text(path, MAX_LOG_BYTES).splitlines():
        if line.strip() == "Test Parameters Used":
            break
        label, colon, value = line.partition(":")
        if colon and value.strip() and not line.lstrip().startswith("*"):
            reported[label.strip()[:200]] = value.strip()[:4000]
    return reported


def _entries(path: Path) -> Iterator[tuple[str, Any, bool]]:
    for number, line in enumerate(read_text(path, MAX_LOG_BYTES).splitlines(), start=1):
        if not line.startswith(MARK):
            continue
        try:
            entry = json.loads(line.removeprefix(MARK))
            yield str(entry["key"]), entry["value"], bool(entry["metadata"]["is_error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path}, line {number}: not an entry of LoadGen's log.") from None


def _sentence(text: object) -> str:
    """Return LoadGen's text on one line, without bullets."""
    return " ".join(str(text).replace(" * ", " ").split())


def _finite(value: Any) -> Any:
    """Return a figure for JSON; an undefined one (without samples) is None, never a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_schedule(path: Path) -> dict[int, tuple[int, int]]:
    """Return, from mlperf_log_trace.json, query number -> (its prompt's number, ns from scheduled to completed).

    The number is LoadGen's order of issue. A truncated trace gives what it has.
    """
    found = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.startswith('{"name":"Sample"') or '"ph":"b"' not in line:
                continue
            try:
                reported = json.loads(line.rstrip().rstrip(","))["args"]
                found[int(reported["sample_seq"])] = (int(reported["sample_idx"]), int(reported["complete_ns"]))
            except (ValueError, KeyError, TypeError):
                continue
    return found


def read_limits(directory: Path, prefix: str = "") -> dict[str, float]:
    """Return the P99 limits of the Server scenario, in milliseconds: ttft_ms and tpot_ms.

    They are from the log whose name begins with `prefix`. Raises InputError if the log cannot be read.
    """
    limits = {}
    for key, value, _ in _entries(directory / f"{prefix}{DETAIL}"):
        metric = key.removeprefix("requested_server_").removesuffix("_latency") + "_ms"
        if key in LIMITS and isinstance(value, int) and 0 < value < 2**63:
            limits[metric] = value / 1e6
    return limits
