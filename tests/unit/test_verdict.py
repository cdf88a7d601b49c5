import itertools
from typing import Any

import pytest

from benchmark.columns import Columns
from benchmark.metrics import compute
from benchmark.profiles import Limit, load_profile
from benchmark.records import (
    MAX_UNSEEN,
    Accuracy,
    AnswerCounts,
    Audit,
    GpuProbes,
    HardwareProbes,
    LoadGenResult,
    Measured,
    Rouge,
    Serving,
    Status,
)
from benchmark.verdict import Findings, judge, label, metric_paths, unit, value_of
from tests.unit.building import asked, closed_loop, failed, sample

METRICS = compute(Columns.of(closed_loop([1000, 1500, 2000])), planned=3)  # 3 queries in 4.4999 s: QPS 0.667


def limits(*given: dict[str, Any]) -> Any:
    return asked(3, {"limits": given}).profile


LOADGEN = LoadGenResult(
    scenario="Server",
    mode="PerformanceOnly",
    valid=False,
    constraints={"min duration satisfied": True, "early stopping satisfied": False},
    reasons=("Run unsuccessful.",),
)


@pytest.mark.parametrize(
    ("status", "within", "loadgen", "prompts"),
    [*itertools.product(("complete", "interrupted", "failed"), (True, False), (None, LOADGEN), (19, 20))],
)
def test_valid_is_complete_and_within_the_limits(
    status: Status, within: bool, loadgen: LoadGenResult | None, prompts: int
) -> None:
    limit = {"metric": "latency_ms.p99", "at_most": 2000 if within else 1999}
    profile = asked(3, {"limits": [limit], "min_prompts": 20}).profile
    verdict = judge(profile, Findings(METRICS, loadgen, prompts=prompts), 0.5, status)
    assert verdict.valid is (status == "complete" and within and loadgen is None and prompts == 20)
    # LoadGen's verdict and the constraint that it rests on are two reasons.
    assert len(verdict.reasons) == (status != "complete") + (not within) + 2 * (loadgen is not None) + (prompts < 20)


def test_loadgens_verdict_becomes_checks_with_its_own_words() -> None:
    checks = judge(limits(), Findings(METRICS, LOADGEN), 0.5, "complete").checks
    assert [(check.metric, check.passed) for check in checks] == [
        ("LoadGen: min duration satisfied", True),
        ("LoadGen: early stopping satisfied", False),
        ("LoadGen: result is valid", False),
        ("LoadGen: no errors", True),
    ]
    assert checks[2].note == "Run unsuccessful."


def test_an_error_that_loadgen_repeats_is_reported_once() -> None:
    repeated = LOADGEN.model_copy(update={"errors": ("too few tokens", "bad", "too few tokens")})
    assert (
        judge(limits(), Findings(METRICS, repeated), 0.5, "complete").checks[3].note == "too few tokens (2 times); bad"
    )


ROUGE = Rouge(rouge1=40, rouge2=15, rougeL=25, rougeLsum=36, generated_characters=100, answers=3, references=3)


def test_accuracy_is_judged_only_where_it_is_measured() -> None:
    limit = {"metric": "rouge2", "at_least": 15.7}
    judged = {
        mode: judge(
            asked(3, {"limits": [], "accuracy": mode, "accuracy_limits": [limit]}).profile, found, 1, "complete"
        )
        for mode, found in (
            ("off", Findings(METRICS)),
            ("only", Findings(accuracy=Accuracy(rouge=ROUGE))),
            ("with-performance", Findings(METRICS, accuracy=Accuracy(errors=2, error="HTTP 503."))),
        )
    }
    assert judged["off"].valid
    assert judged["only"].reasons == ("ROUGE-2 15 is below the required 15.7.",)
    assert judged["with-performance"].reasons == (
        "ROUGE-2 is undefined; at least 15.7 is required.",
        "2 queries of the accuracy run failed, the first with: HTTP 503.",
    )


def test_a_failed_audit_and_its_failed_queries_are_reasons() -> None:
    loadgen = LoadGenResult.model_validate({"scenario": "Server", "mode": "PerformanceOnly"})
    checks = ("First token: FAIL, 1 of 9 answers differ.", "Length: pass, 0 of 9 answers differ.")
    audit = Audit(name="TEST06", passed=False, checks=checks, answers=9, end_tokens=(2,), errors=3, loadgen=loadgen)
    verdict = judge(limits(), Findings(METRICS, audit=audit), 1, "complete")
    assert verdict.reasons == (
        "TEST06: passed: no. First token: FAIL, 1 of 9 answers differ.",
        "3 queries of the TEST06 run failed.",
    )


@pytest.mark.parametrize(
    ("limit", "passed"),
    [
        ({"metric": "qps", "at_least": 0.66}, True),
        ({"metric": "qps", "at_least": 0.67}, False),
        ({"metric": "qps", "at_least_of_target": 0.9}, True),  # 0.9 x 0.7 = 0.63
        ({"metric": "qps", "at_least_of_target": 0.99}, False),
        ({"metric": "latency_ms.p99", "at_most": 2000}, True),
        ({"metric": "latency_ms.p50", "at_most": 1499.9}, False),
        ({"metric": "queries.failed", "at_most": 0}, True),
        # What is exactly the limit keeps it.
        ({"metric": "latency_ms.p50", "at_least": 1500}, True),
        ({"metric": "latency_ms.p50", "at_most": 1500}, True),
    ],
)
def test_each_kind_of_limit(limit: dict[str, Any], passed: bool) -> None:
    (check,) = judge(limits(limit), Findings(METRICS), 0.7, "complete").checks
    assert check.passed is passed


@pytest.mark.parametrize("bound", [{"at_most": 1e9}, {"at_least": 0}])
def test_what_is_undefined_passes_no_check(bound: dict[str, float]) -> None:
    metrics = compute(Columns.of([sample(0, tokens=1)]), 3)
    verdict = judge(limits({"metric": "tpot_ms.p99", **bound}), Findings(metrics), 0.5, "complete")
    assert not verdict.valid
    assert "P99 TPOT is undefined" in verdict.reasons[0]


def test_profile_quick() -> None:
    profile = load_profile("quick")
    healthy = compute(Columns.of(closed_loop([1800] * 20)), 20)
    assert judge(profile, Findings(healthy), 0.5, "complete").valid
    slow = judge(profile, Findings(compute(Columns.of(closed_loop([2500] * 20)), 20)), 0.5, "complete")
    assert slow.reasons == ("QPS 0.4 is below the required 0.45.",)
    partly = Columns.of([*closed_loop([1800] * 18), failed(18, 32400)])
    broken = judge(profile, Findings(compute(partly, 20)), 0.5, "complete")
    assert broken.reasons == (
        "failed queries 1 is above the allowed 0.",
        "unfinished queries 1 is above the allowed 0.",
    )


def test_failed_queries_are_a_reason_only_where_they_count() -> None:
    metrics = compute(Columns.of([*closed_loop([1800] * 18), failed(18, 32400)]), 19)
    found = Findings(metrics, failures="1 of them: The GPU's memory is full.")
    asked = judge(limits({"metric": "queries.failed", "at_most": 0}), found, 0.5, "complete")
    assert asked.reasons == ("failed queries 1 is above the allowed 0.", "1 of them: The GPU's memory is full.")
    assert judge(limits({"metric": "queries.failed", "at_most": 1}), found, 0.5, "complete").valid


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_exactly_the_share_that_may_go_unseen_passes(more: int) -> None:
    completed = 100_000
    metrics = METRICS.model_copy(
        update={
            "queries": METRICS.queries.model_copy(update={"completed": completed}),
            "output_tokens": completed,
            "answers": AnswerCounts(
                one_piece=int(MAX_UNSEEN * completed) + more, miscounted=9, miscounted_tokens=2000 + more
            ),
        }
    )
    server = asked(3, {"limits": (), "scenario_options": {"scenario": "Server"}}).profile
    reasons = judge(server, Findings(metrics), 0.5, "complete").reasons
    assert len(reasons) == 2 * more, reasons


def test_a_check_on_too_few_samples_says_so() -> None:
    (check,) = judge(limits({"metric": "latency_ms.p99", "at_most": 3000}), Findings(METRICS), 0.5, "complete").checks
    assert check.note == "P99 of 3 samples: insufficient (662 needed at 99 % confidence)"


def test_every_metric_has_a_label_and_a_value() -> None:
    for path in metric_paths():
        assert path.startswith(("report_delay_ms", "first_report_delay_ms")) or value_of(METRICS, path) is not None, (
            path
        )
    assert label("latency_ms.p99") == "P99 latency"
    assert (unit("latency_ms.p99"), unit("qps")) == (" ms", "")


@pytest.mark.parametrize("path", ["latency_ms", "latency_ms.p98", "latency_ms.insufficient", "speed", ""])
def test_an_unknown_metric_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="there is no metric"):
        value_of(compute(Columns.of(()), 3), path)


@pytest.mark.parametrize("given", [{}, {"at_least": 1, "at_most": 2}])
def test_a_limit_has_exactly_one_bound(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Limit(metric="qps", **given)


def test_a_load_that_the_client_throttled_is_no_valid_one() -> None:
    profile = asked(3, {"limits": []}).profile
    assert judge(profile, Findings(METRICS, serving=Serving(resent=3, max_connections=9)), 0.5, "complete").valid
    verdict = judge(profile, Findings(METRICS, serving=Serving(waited=5, max_connections=9)), 0.5, "complete")
    assert not verdict.valid
    assert verdict.reasons[0].startswith(
        "5 queries waited in the client for one of its 9 connections: the server did not get the requested load"
    )


def probed(*reads: float, wrong: int = 0, notes: tuple[str, ...] = ()) -> HardwareProbes:
    """Return the probes of a node whose GPUs read their memory that fast, in GB/s."""
    figures = [
        {
            "device_memory_read": Measured(value=read, unit="GB/s"),
            "kernel_launch": Measured(value=2.0, unit="us"),
            "wrong_products": Measured(value=wrong, unit="of 39"),
        }
        for read in reads
    ]
    gpus = tuple(GpuProbes(index=index, figures=one) for index, one in enumerate(figures))
    return HardwareProbes(node={"cpu_one_core": Measured(value=900, unit="MB/s")}, gpus=gpus, notes=notes, seconds=1)


def test_a_gpu_that_computes_wrongly_is_never_valid() -> None:
    for profile in ("hardware", "quick"):
        verdict = judge(load_profile(profile), Findings(probes=probed(4000, wrong=2)), 0, "complete")
        assert verdict.reasons == ("GPU 0 computes wrongly: 2 of 39 products of the same matrices differ.",)


def test_a_failed_probe_is_a_reason_in_a_run_of_probes_alone() -> None:
    found = Findings(probes=probed(4000, notes=("GPU 1: the probes did not end within 90 s.",)))
    assert judge(load_profile("hardware"), found, 0, "complete").reasons == found.probes.notes  # type: ignore[union-attr]
    assert judge(load_profile("quick"), found, 0, "complete").valid
    assert not judge(load_profile("hardware"), Findings(), 0, "complete").valid
