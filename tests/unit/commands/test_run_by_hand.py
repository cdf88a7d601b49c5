"""What a run by hand writes down: the line that runs it again."""

import shlex

import pytest

from benchmark.commands.run import command_line


def test_the_line_to_run_it_again_is_one_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER_TARGET_QPS", "CUDA_VISIBLE_DEVICES", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", "/my models")
    monkeypatch.setenv("OPENAI_API_KEY", "quiet")
    line = command_line("jw2", ["benchmark_engine_options={a: 'b c'}"], "my secrets")
    assert shlex.split(line) == [
        *("NODE_NAME=jw2", "HF_HOME=/my models", "python3", "-m", "benchmark", "run"),
        *("--set", "benchmark_engine_options={a: 'b c'}", "--secrets", "my secrets"),
    ]
    assert command_line("jw2", [], "-").endswith("python3 -m benchmark run")
