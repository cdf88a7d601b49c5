"""A run that was ended before its time says so wherever it is shown, and never counts."""

from pathlib import Path

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.interruption import INTERRUPTED, keep_interruption
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.junit import render_junit
from benchmark.cluster.render.summary import render_cluster
from benchmark.rundir import read_run
from tests.unit.building import add_node, asked, make_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of one node that is complete and valid."""
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1700.0, 1800.0, 1900.0])
    return tmp_path


def test_it_is_never_valid_and_says_so_everywhere(run_dir: Path) -> None:
    assert aggregate(run_dir).partial == ""
    assert aggregate(run_dir).verdict.valid
    keep_interruption(run_dir, "SIGINT")
    run, result = read_run(run_dir), aggregate(run_dir)
    assert result.partial.startswith("Interrupted by Ctrl-C: ")
    assert not result.verdict.valid
    assert result.verdict.reasons == (result.partial,)
    outcome = Outcome(run, result)
    assert outcome.word == "PARTIAL"
    assert (outcome.exit_code("strict"), outcome.exit_code("nodes")) == (4, 4)
    assert "*** PARTIAL. Interrupted by Ctrl-C" in render_cluster(result, run)
    assert "**PARTIAL.** Interrupted by Ctrl" in render_job_summary(outcome)
    assert '<error type="partial"' in render_junit(outcome)


def test_a_damaged_note_is_still_an_interruption(run_dir: Path) -> None:
    (run_dir / INTERRUPTED).write_text("{")
    assert "not JSON" in aggregate(run_dir).partial
