"""A run that was ended before its time says so wherever it is shown, and never counts."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.interruption import INTERRUPTED, keep_interruption
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.junit import render_junit
from benchmark.cluster.render.summary import render_cluster
from benchmark.rundir import read_run
from tests.unit.building import add_node, asked, make_run, result_of, write_node
from tests.unit.queues import LADDER, S, queue, sweeping, write_sweep


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
    summary = " ".join(render_cluster(result, run).split())
    assert "*** PARTIAL. Interrupted by Ctrl-C" in summary
    assert "INVALID: Interrupted by Ctrl-C: the nodes were stopped" in summary, "there is no other reason"
    assert "**PARTIAL.** Interrupted by Ctrl" in render_job_summary(outcome)
    assert '<error type="partial"' in render_junit(outcome)


def test_a_damaged_note_is_still_an_interruption(run_dir: Path) -> None:
    (run_dir / INTERRUPTED).write_text("{")
    assert "not JSON" in aggregate(run_dir).partial


def test_where_nothing_was_measured_nothing_was_fetched(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    keep_interruption(tmp_path, "SIGTERM")
    assert aggregate(tmp_path).partial == "Interrupted by SIGTERM before anything was measured."


def test_steps_are_counted_and_not_the_first_ones_queries(tmp_path: Path) -> None:
    resolved = sweeping()
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), resolved))
    ended: dict[str, Any] = {"status": "interrupted", "stage": "measuring", "sweep_ended": "", "verdict": None}
    write_sweep(run_dir, "jw2", resolved, {users: queue(users, 6, [2 * S] * 20) for users in LADDER[:3]}, **ended)
    write_node(run_dir, result_of("jw3", resolved, queue(1, 6, [S] * 4), status="interrupted", stage="measuring"), [])
    reasons = {row.node: row.reason for row in aggregate(run_dir).nodes}
    assert reasons["jw2"] == f"Interrupted while measuring, after 3 of {len(LADDER)} steps."
    assert reasons["jw3"].startswith("Interrupted while measuring, after 0 queries of the first step")
