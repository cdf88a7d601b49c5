import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli import COMMANDS, main

# What runs on this machine at the same time is meant to.
SHARED = ("--set", "benchmark_shared_machine=true")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: python3 -m benchmark {command}" in capsys.readouterr().out


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert set(COMMANDS) <= set(said.split())


def test_a_run_by_hand_measures_and_leaves_a_run_directory(tmp_path: Path) -> None:
    words = [f"benchmark_results_dir={tmp_path}", "benchmark_profile=self-test", "benchmark_device=cpu"]
    sets = [word for setting in words for word in ("--set", setting)]
    done = run("run", *sets, *SHARED, NODE_NAME="jw2", SERVER_TARGET_QPS="2")
    assert done.returncode == 0, done.stderr
    latest = (tmp_path / "latest").resolve()
    assert len(list((latest / "nodes" / "jw2").glob("mlperf_datacenter_jw2_*.json"))) == 1
    assert "at least 1.8" in done.stdout  # 90 % of SERVER_TARGET_QPS
    again = run("aggregate", str(latest))
    assert again.returncode == 0, again.stderr
    assert "jw2" in again.stdout


def test_an_invalid_verdict_is_exit_code_1(tmp_path: Path) -> None:
    sets = ["--set", f"benchmark_results_dir={tmp_path}", "--set", "benchmark_profile=self-test", *SHARED]
    done = run("run", *sets, "--set", "benchmark_device=cpu", "--set", "benchmark_target_qps=1000")
    assert done.returncode == 1
    assert "INVALID" in done.stdout


def test_secrets_become_the_environment_from_the_start(tmp_path: Path) -> None:
    sets = ["--set", f"benchmark_results_dir={tmp_path}", "--set", "benchmark_profile=self-test", *SHARED]
    secrets = {"benchmark_environment": {"PYTHONWARNINGS": "never-heard-of-it", "FILLS": "x" * 30_000}}
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", *sets, "--set", "benchmark_device=cpu", "--secrets", "-"],
        input=json.dumps(secrets) + "\n",
        env={**os.environ, "NODE_NAME": "jw2", "SERVER_TARGET_QPS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Read by Python before it runs anything, and so by one that was started with it.
    assert "Invalid -W option ignored" in done.stderr
    result = json.loads(next((tmp_path / "latest/nodes/jw2").glob("mlperf_*.json")).read_text())
    assert result["environment"]["variables"] == ["FILLS", "PYTHONWARNINGS"]
    assert not [path for path in tmp_path.rglob("*.*") if path.is_file() and b"never-heard" in path.read_bytes()]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["run", "--set", "benchmark_profil=x"],
            2,
            "benchmark_profil is not a setting: did you mean benchmark_profile?",
        ),
        (["run", "--set", "benchmark_profile"], 2, "give NAME=VALUE"),
        (["run", "--set", "benchmark_target_qps=-1"], 2, "benchmark_target_qps is -1"),
        (["run", "--set", "benchmark_endpoint_api_key=sk"], 2, "benchmark_endpoint_api_key may be secret"),
        (["run", "--secrets", "/nowhere"], 2, "--secrets: /nowhere cannot be read: No such file"),
        (["run", "--order", "/nowhere/order.json"], 2, "/nowhere/order.json: No such file"),
        (["aggregate", "/nowhere"], 2, "/nowhere"),
    ],
)
def test_bad_input_is_a_sentence_and_no_traceback(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_what_may_not_be_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", closed)
    assert main(["prune", "--keep", "1", "--results-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: Permission denied.\n"


def test_what_nobody_foresaw_does_not_end_as_an_invalid_verdict() -> None:
    script = """
from benchmark import cli
def main():
    raise MemoryError("no room")
cli.main = main
cli.entry()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == "MemoryError: no room"


def test_a_reader_that_has_enough_gets_no_traceback(tmp_path: Path) -> None:
    """As `list | head` does: the pipe is closed before all is written."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "benchmark", "list", "--results-dir", str(tmp_path)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (4, "")
