"""Stages of the start, and the age of the process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmark.node.startup import Stages, process_age_s


def test_a_stage_is_measured_even_where_it_fails_and_adds_up() -> None:
    stages = Stages()
    with stages.stage("weights"):
        time.sleep(0.02)
    with pytest.raises(ValueError, match="no"), stages.stage("weights"):
        raise ValueError("no")
    with stages.stage("cache"):
        pass
    assert list(stages.seconds) == ["weights", "cache"]
    assert stages.seconds["weights"] >= 0.02


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_the_process_is_as_old_as_the_system_says() -> None:
    age = process_age_s()
    assert age is not None
    time.sleep(0.05)
    later = process_age_s()
    assert later is not None
    assert later >= age + 0.04
    # No older than the system, to a tick.
    assert 0 <= later <= time.clock_gettime(time.CLOCK_BOOTTIME)
