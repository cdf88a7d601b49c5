import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from benchmark.records import Audit, CpuTime, EngineInfo, LoadGenResult, NodeResult, Sample, Serving
from benchmark.text.columns import columns
from benchmark.text.node_result import render_node
from tests.unit.building import GPU, HOST, asked, closed_loop, failed, result_of, sample_lists

# What a result can hold: a lone surrogate it cannot.
TOLD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)


def render(**changes: Any) -> str:
    return render_node(result_of("jw2", asked(3), closed_loop([1700.0, 1800.0, 1900.0]), **changes))


def test_a_node_result() -> None:
    text = render()
    flowing = " ".join(text.split())
    for words in (
        "node jw2",
        "unverified, not an MLCommons submission",
        "quick v4: a health check, not a capacity figure",
        "meta-llama/Llama-3.1-8B-Instruct@be673f326cab, float16, cuda",
        "NVIDIA A30 (24576 MiB)",
        "3 of 3 completed, 0 failed, 0 unfinished",
        "QPS         0.56",
        "of 3 samples: insufficient (P50: 11, P90: 64, P95: 130, P99: 662 needed",
    ):
        assert " ".join(words.split()) in flowing, words
    assert re.search(r"mean +P50\* +P90\* +P95\* +P99\* +max$", text, re.MULTILINE), "what the note below is about"
    assert text.endswith("VALID: every check passed.\n")
    assert "SIMULATED" not in text


def test_a_simulated_result_says_so_loudly() -> None:
    assert "*** SIMULATED" in render(engine=EngineInfo(name="sequential", simulated=True))


@pytest.mark.parametrize(
    ("stolen_s", "words"), [(0.6, "CPU steal the hypervisor took 6.00 % of one CPU's time"), (0.09, "")]
)
def test_what_a_hypervisor_took_is_reported(stolen_s: float, words: str) -> None:
    text = " ".join(render(cpu=CpuTime(wall_s=10, used_s=3, stolen_s=stolen_s)).split())
    assert words in text
    assert ("CPU steal" in text) == bool(words)


def test_the_start_is_reported_by_stage() -> None:
    stages: dict[str, JsonValue] = {"imports": 3.25, "warm_up": 1.0, "since_process_start": 9.81}
    text = render(engine=EngineInfo(name="continuous", details={"startup_s": stages}))
    assert "imports 3.2 s, warm up 1.0 s, 9.8 s since the process began" in " ".join(text.split())
    for odd in (None, "long", [1.0], {"imports": "long", "weights": None}):
        assert "Start-up" not in render(engine=EngineInfo(name="continuous", details={"startup_s": odd}))


@pytest.mark.parametrize(
    ("passed", "checks", "errors", "words"),
    [
        (True, ("Length: pass, 0 of 9 answers differ.",), 0, "Audit TEST06 passed: 9 answers checked."),
        (
            False,
            ("First token: pass.", "Length: FAIL, 2 of 9 answers differ."),
            3,
            "Audit TEST06 FAILED: 9 answers checked. Length: FAIL, 2 of 9 answers differ. 3 of its queries failed.",
        ),
    ],
)
def test_what_an_audit_came_to_is_reported(passed: bool, checks: tuple[str, ...], errors: int, words: str) -> None:
    loadgen = LoadGenResult.model_validate({"scenario": "Server", "mode": "PerformanceOnly"})
    audit = Audit(
        name="TEST06", passed=passed, checks=checks, answers=9, end_tokens=(2,), errors=errors, loadgen=loadgen
    )
    assert words in " ".join(render(audit=audit).split())


def test_an_invalid_result_ends_with_its_reasons() -> None:
    samples = [*closed_loop([2500.0, 2500.0]), failed(2, 5000)]
    text = render_node(result_of("jw2", asked(3), samples))
    assert "  FAIL      failed queries: 1, at most 0" in text
    assert "INVALID: failed queries 1 is above the allowed 0. QPS " in text


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_result_without_numbers(status: str) -> None:
    text = render(
        status=status, stage="loading", metrics=None, verdict=None, engine=None, environment=None, error="Why."
    )
    assert f"Status      {status}: Why." in text
    assert text.endswith("NO VERDICT: nothing was measured.\n")


@given(sample_lists(5), TOLD)
def test_a_node_result_always_fits(samples: list[Sample], odd: str) -> None:
    environment = HOST.model_copy(update={"cpu": odd, "gpus": (GPU.model_copy(update={"name": odd * 3}),)})
    result = result_of("n" * 128, asked(5), samples, error=odd * 10, environment=environment)
    assert all(columns(line) <= 80 and line.isprintable() for line in render_node(result).split("\n"))


def test_the_names_in_a_result_are_never_templates() -> None:
    assert "{{ 7 * 7 }}" in render(error="{{ 7 * 7 }} {% raw %}")


def test_the_template_is_in_the_package() -> None:
    import benchmark

    assert (Path(benchmark.__file__).parent / "text" / "templates" / "node_result.txt.j2").is_file()
    assert NodeResult.model_fields["disclaimer"].default == benchmark.DISCLAIMER


def test_queries_that_waited_or_were_sent_again_are_reported() -> None:
    reported = " ".join(render(serving=Serving(waited=7, resent=3, max_connections=90)).split())
    assert "Connections 7 queries waited for one of 90 connections; 3 queries were sent again" in reported
    assert "Connections" not in render(serving=Serving(max_connections=90))
