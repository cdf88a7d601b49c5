"""The action `submission`: what it refuses before anything is measured, and what each step is asked."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from ansible import context
from node_action import NodeFailure
from play_settings import Play

from benchmark.cluster.submission.plan import Begun, plan_step
from benchmark.cluster.submission.rules import DATACENTER
from benchmark.errors import InputError
from benchmark.resolve import resolve_nodes
from tests.unit.cluster.submission.conftest import ANSWERS

PLUGIN = Path(__file__).parents[3] / "plugins" / "action" / "submission.py"
spec = importlib.util.spec_from_file_location("submission_action", PLUGIN)
assert spec is not None
assert spec.loader is not None
submission = importlib.util.module_from_spec(spec)
spec.loader.exec_module(submission)


def action(tmp_path: Path, check: bool = True, **args: Any) -> Any:
    given = {"suite": "datacenter", "division": "closed", "submitter": "Us", "system": str(tmp_path / "system.yml")}
    made = submission.ActionModule.__new__(submission.ActionModule)
    made._task = SimpleNamespace(args={**given, "output": str(tmp_path / "tree"), **args}, check_mode=check)
    return made


def play(tmp_path: Path, **targets: float | str) -> Play:
    given: dict[str, dict[str, Any]] = {
        node: {
            "benchmark_profile": "mlperf-offline",
            "benchmark_target_qps": target,
            "benchmark_results_dir": str(tmp_path / "results"),
        }
        for node, target in (targets or {"jw2": 4}).items()
    }
    return Play(resolve_nodes(given), given, dict.fromkeys(given, "h"), ())


def test_one_system_of_several_nodes_is_refused(tmp_path: Path) -> None:
    given = {"benchmark_profile": "mlperf-offline", "benchmark_engine": "vllm", "benchmark_system": "cluster"}
    known = {"jw2": {**given, "benchmark_driver": "jw2"}}
    with pytest.raises(InputError, match="a submission's tree has the system of one node each: set it to node"):
        action(tmp_path)._make(Play(resolve_nodes(known), known, dict.fromkeys(known, "h"), ()))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"submitter": ""}, "submission_submitter is not set"),
        ({"submitter": "Us & Them"}, "submission_submitter: 'Us & Them' becomes a directory"),
        ({"division": "closd"}, "submission_division is 'closd'"),
        ({"scenarios": "Ofline"}, "submission_scenarios names Ofline"),
        ({"again": "offline"}, "submission_again names offline: the steps are Offline, Server"),
        ({"targets": {"Server": "fast"}}, "submission_target_qps has 'fast'"),
        ({"targets": {"Sever": 3}}, "submission_target_qps is"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(tmp_path: Path, args: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        action(tmp_path, **args)._make(play(tmp_path))
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_check_asks_before_the_work_and_writes_nothing(tmp_path: Path) -> None:
    assert action(tmp_path)._make(play(tmp_path)) == {"changed": False, "tree": "", "complete": False}
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="was written: fill in its answers"):
        action(tmp_path, check=False)._make(play(tmp_path))
    # A node that answers with its GPUs has questions of its own, which are not left for the end.
    (tmp_path / "system.yml").write_text(ANSWERS)
    with pytest.raises(InputError, match="accelerator_interconnect has no answer"):
        action(tmp_path, check=False)._make(play(tmp_path))


def test_every_node_keeps_its_own_target_unless_the_step_has_one(tmp_path: Path) -> None:
    made = action(tmp_path, targets={"Server": 9})
    nodes = play(tmp_path, jw2=4, jw3=2.5)
    offline, server = made._steps(nodes, DATACENTER, "closed", ("Offline", "Server"), {})
    assert (offline.target, offline.qps) == ("", 2.5)
    assert (server.target, server.qps) == ("9", 9.0)
    assert "benchmark_target_qps" not in submission._asked(offline, "closed")
    (searched,) = made._steps(play(tmp_path, jw2="auto", jw3=2), DATACENTER, "closed", ("Offline",), {})
    assert (searched.target, searched.qps) == ("", None)
    assert searched.parts[0][0] == "search for the highest valid target"


def test_a_step_is_asked_in_words_that_ansible_reads_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def popen(words: list[str], **_: Any) -> Any:
        asked.append(words)
        return SimpleNamespace(stdout=["done\n"], wait=lambda: 0)

    monkeypatch.setattr(submission.subprocess, "Popen", popen)
    monkeypatch.setattr(context, "CLIARGS", {"args": ("playbooks/submission.yml",)})
    monkeypatch.setattr(sys, "argv", ["ansible-playbook", "playbooks/submission.yml", "--limit", "jw2"])
    step = plan_step(DATACENTER, "Offline", "closed", "9", 9.0)
    place = tmp_path / "my results"
    action(tmp_path)._measure(play(tmp_path), step, place, "closed", None)
    assert asked[0][1:4] == [str(submission.PLAYBOOK), "--limit", "jw2"]
    assert f"benchmark_results_dir='{place}'" in asked[0]
    assert "benchmark_audit=TEST06" in asked[0]
    assert not any(word.startswith("benchmark_resume") for word in asked[0])
    action(tmp_path)._measure(play(tmp_path), step, place, "closed", Begun("r1", "", None, ("jw3",)))
    assert "benchmark_resume=r1" in asked[1]
    # A run that was asked otherwise is not gone on with in silence: it is told what is asked now.
    assert "benchmark_target_qps=9" in asked[1]


def test_the_tree_is_of_the_plays_nodes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        asked.append(words)
        return SimpleNamespace(returncode=1, stdout="", stderr="")

    monkeypatch.setattr(submission.subprocess, "run", run)
    made = action(tmp_path)._write(play(tmp_path, jw2=1, jw3=1), [], "open", tmp_path / "s", tmp_path / "tree")
    assert not made["complete"]
    assert asked[0][-4:] == ["--node", "jw2", "--node", "jw3"]


@pytest.mark.timeout(60)
def test_an_interrupted_steps_last_words_are_read_however_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission.ActionModule, "interruption", "Interrupted by Ctrl-C")
    made = action(tmp_path)
    program = "for _ in range(9): print('x' * 50_000)"
    made._child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with pytest.raises(NodeFailure, match="What was measured is kept"):
        made.after_interruption()
    assert made._child.returncode == 0
