"""The profiles that the whole run on one node is tried with."""

from __future__ import annotations

import pytest

from benchmark.profiles import Profile
from benchmarks.whole_run import profile


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_its_profiles_are_profiles(scenario: str) -> None:
    made = Profile.model_validate(profile(scenario, 30, 128, 1300))
    assert made.scenario_options["scenario"] == scenario
    assert made.generation.min_new_tokens == made.generation.max_new_tokens == 128
