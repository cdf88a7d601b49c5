"""The profiles that the whole run on one node is tried with."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.columns import Columns
from benchmark.metrics import compute
from benchmark.profiles import Profile
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmarks.whole_run import bore, profile


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_its_profiles_are_profiles(scenario: str) -> None:
    made = Profile.model_validate(profile(scenario, 30, 128, 1300))
    assert made.scenario_options["scenario"] == scenario
    assert made.generation.min_new_tokens == made.generation.max_new_tokens == 128


def result(status: str, **more: Any) -> NodeResult:
    made = {"run_id": "r1", "node": "gpu", "stage": "warm-up", "started_at": "2026-11-26T13:00:00+00:00"}
    return NodeResult.model_validate({**made, "resolved": resolve({}), "status": status, **more})


@pytest.mark.parametrize(
    ("ended", "code", "bore_it"),
    [
        (result("failed", error="The GPU's memory is full (CUDA error: out of memory)."), 4, True),
        (result("failed", error="The GPU's memory is full (CUDA error: out of memory)."), 0, False),
        (result("failed", error="Invalid values: num_sectors = -16"), 3, False),
        (result("complete", metrics=compute(Columns.of([]), 0)), 0, True),
        (result("complete", verdict={"valid": False, "reasons": ["16 of them: is_good() is not true."]}), 1, False),
    ],
)
def test_a_job_whose_gpu_was_filled_has_to_say_so(ended: NodeResult, code: int, bore_it: bool) -> None:
    assert bore(ended, code) is bore_it
