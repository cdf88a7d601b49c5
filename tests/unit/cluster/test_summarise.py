"""What the playbook knows of nodes that failed goes into the run's directory, and into its summary."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.summarise import summarise
from benchmark.errors import InputError
from tests.unit.building import add_node, asked, make_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1700.0, 1800.0, 1900.0])
    return tmp_path


def test_failures_are_kept(run_dir: Path) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    failures = {"jw3": {"stage": "hf_cache", "reason": "The disk is full. " + "x" * 9000}}
    summary = summarise(run_dir, failures)
    assert not summary.valid
    assert "hf_cache: The disk is full." in summary.text
    # Kept: the next summary is given none.
    assert "hf_cache: The disk is full." in summarise(run_dir).text
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_failures(run_dir: Path, nothing: dict[str, Any] | None) -> None:
    assert not summarise(run_dir, nothing).valid
    assert not list(run_dir.rglob("failure.json"))


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ([], "The failures cannot be read"),
        ("{", "The failures cannot be read"),
        ({"jw3": {"stage": "", "reason": 7}}, "The failures cannot be read"),
        ({"jw3": {"stage": "", "reason": "x"}}, "The failures cannot be read"),
        ({"../jw3": {"stage": "x", "reason": "x"}}, "nodes that are not in the run: ../jw3"),
    ],
)
def test_bad_failures_are_refused_before_writing(run_dir: Path, failures: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        summarise(run_dir, failures)
    assert not list(run_dir.rglob("failure.json"))
    assert not (run_dir / "benchmark_summary.txt").exists()
