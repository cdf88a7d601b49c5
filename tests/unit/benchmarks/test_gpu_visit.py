"""What is measured in a visit, in which order, and that it ends in time."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import against_vllm
from benchmarks.gpu_visit import STEPS, Step, Visit, parse, steps
from tests.processes import assert_ended


def names(place: Path, *words: str) -> list[str]:
    return [step.name for step in steps(parse(["--output", str(place), *words]))]


def test_what_is_asked_for_and_can_be(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    there = ("--model", str(tmp_path / "model"))
    one = [name for name in STEPS if name not in ("sequential", "other", "other-quick")]
    assert names(tmp_path, *there, "--gpus", "3") == one
    assert names(tmp_path, *there, "--gpus", "0,1", "--libraries", "/opt/torch") == [*STEPS]
    assert names(tmp_path, "--model", str(tmp_path / "none"), "--steps", "kernels") == ["model", "kernels"]
    with pytest.raises(SystemExit):
        names(tmp_path, "--steps", "kernel")


def test_its_loads_are_what_the_comparison_takes(tmp_path: Path) -> None:
    for step in steps(parse(["--output", str(tmp_path)])):
        if "benchmarks.against_vllm" in step.words:
            loads = list(step.words)[step.words.index("--loads") + 1 : step.words.index("--offline")]
            assert {load.partition("@")[0] for load in loads} <= against_vllm.PROFILES.keys()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_each_gpu_takes_the_next_step_and_both_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    show = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'), os.environ['PYTHONPATH'].split(':')[0])"
    # Either can only go on while the other runs.
    meet = """
import pathlib, time
pathlib.Path('../{0}').touch()
while not pathlib.Path('../{1}').exists():
    time.sleep(0.01)
"""
    asked = [
        Step("left", python(meet.format("a", "b")), 0),
        Step("right", python(meet.format("b", "a")), 0),
        Step("both", python(show), 0, gpus=2),
        Step("other", python(show), 0, libraries="/opt/torch"),
        Step("fails", python("raise SystemExit(3)"), 0),
        Step("late", python(""), 10_000),
    ]
    rows = {row["step"]: row for row in Visit(tmp_path, ["4", "5"], 60).run(asked)}
    assert next(iter(rows)) == "both"
    assert {rows["left"]["GPUs"], rows["right"]["GPUs"]} == {"4", "5"}
    assert {name: row.get("exit code") for name, row in rows.items()} == {
        **dict.fromkeys(("both", "left", "right", "other"), 0),
        **{"fails": 3, "late": None},
    }
    assert rows["late"]["note"].startswith("not started: it needs 10000 s, and ")
    assert (tmp_path / "both.txt").read_text().startswith("all ")
    assert (tmp_path / "other.txt").read_text() == f"{rows['other']['GPUs']} /opt/torch\n"


def test_what_runs_at_the_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    start = "import subprocess; child = subprocess.Popen(['sleep', '300']); print(child.pid, flush=True); child.wait()"
    visit = Visit(tmp_path, ["0"], 300)
    found: list[dict[str, object]] = []
    asked = [Step("hangs", python(start), 0), Step("next", python(""), 0)]
    runner = threading.Thread(target=lambda: found.extend(visit.run(asked)))
    runner.start()
    said = tmp_path / "hangs.txt"
    while not said.exists() or not said.read_text().endswith("\n"):
        time.sleep(0.01)
    visit.end()
    runner.join()
    assert [row.get("exit code") for row in found] == [-15, None]
    assert_ended(int(said.read_text()))
