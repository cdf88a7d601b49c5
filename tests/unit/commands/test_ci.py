"""`python3 -m benchmark ci` without a playbook: which run is this one, what broke, the exit code."""

import argparse
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.cluster.outcome import Outcome, Policy
from benchmark.cluster.playbook import Listener, Played
from benchmark.commands.ci import add_arguments, command_words, outcome_of
from benchmark.errors import InputError
from tests.unit.building import add_node, asked, make_run

FAST, SLOW = [1700.0, 1800.0, 1900.0], [4000.0] * 3


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def opened(directory: str, **more: Any) -> dict[str, Any]:
    return {
        "event": "runner_on_ok",
        "event_data": {"task_action": "benchmark_open", "res": {"dir": directory, **more}},
    }


def played(code: int, run_dir: Path | None, reported: tuple[str, ...] = (), interrupted: bool = False) -> Played:
    return Played(code, run_dir, reported, interrupted)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path, {"jw2": asked(3)})
    (tmp_path / "benchmark_summary.txt").touch()
    return tmp_path


def test_the_run_is_the_first_that_the_playbook_says_it_opened() -> None:
    listener = Listener()
    for event in (
        {"event": "runner_on_ok", "event_data": {"task_action": "debug", "res": {"dir": "/none"}}},
        {"event": "runner_on_failed", "event_data": {"task_action": "benchmark_open", "res": {"dir": "/failed"}}},
        opened(""),  # check mode
        opened("/first"),
        opened("/later"),
    ):
        assert listener.event(event) is False
    assert listener.run_dir == Path("/first")


def test_what_it_prints_has_no_carriage_returns(capsys: pytest.CaptureFixture[str]) -> None:
    listener = Listener(keep_events=True)
    assert listener.event({"event": "verbose", "stdout": "one\r\ntwo \udcb4"}) is True
    listener.event({"event": "verbose", "stdout": ""})
    assert capsys.readouterr().out == "one\ntwo ?\n"
    assert list(listener.tail) == ["one", "two \udcb4"]


def test_ctrl_c_is_handed_on_once_and_the_same_again_gives_up() -> None:
    # As runner starts ansible-playbook: in a session of its own, which a terminal's Ctrl-C does not reach.
    playbook = subprocess.Popen(["sleep", "300"], start_new_session=True)
    listener = Listener()
    listener.event({"event": "playbook_on_start", "pid": playbook.pid})
    listener.event({"event": "playbook_on_start", "pid": 1})
    assert not listener.give_up()
    listener.interrupt(signal.SIGINT)
    assert playbook.wait() == -signal.SIGINT
    assert not listener.give_up()  # it may still fetch what the nodes have measured
    listener.interrupt(signal.SIGTERM)
    assert not listener.give_up()  # a CI system sends both when a job is cancelled
    listener.interrupt(signal.SIGINT)
    assert listener.give_up()


def test_before_there_is_a_playbook_ctrl_c_gives_up() -> None:
    listener = Listener()
    listener.interrupt(signal.SIGTERM)
    assert listener.give_up()


@pytest.mark.parametrize(
    ("latencies", "code", "strict", "nodes"),
    [(FAST, 0, 0, 0), (SLOW, 2, 1, 0), (SLOW, 0, 1, 0), (None, 2, 1, 1)],
)
def test_exit_codes_by_policy(run_dir: Path, latencies: list[float] | None, code: int, strict: int, nodes: int) -> None:
    if latencies:
        add_node(run_dir, "jw2", asked(3), latencies)
    outcome = outcome_of(played(code, run_dir))
    assert outcome.broke == ""
    assert (outcome.exit_code("strict"), outcome.exit_code("nodes")) == (strict, nodes)


@pytest.mark.parametrize("policy", ["strict", "nodes"])
def test_what_broke_is_4_whatever_the_policy(run_dir: Path, policy: Policy) -> None:
    add_node(run_dir, "jw2", asked(3), FAST)
    for given, said in (
        (played(2, run_dir, ("jw2: could not be cleaned",)), "though every node delivered"),
        (played(99, run_dir, interrupted=True), "The run was interrupted."),
        (played(99, None, interrupted=True), "The run was interrupted."),
        (played(250, None, ("Unexpected Exception",)), "Unexpected Exception"),
        (played(0, run_dir / "gone"), "is not a run"),
    ):
        outcome = outcome_of(given)
        assert said in outcome.broke
        assert (outcome.exit_code(policy), outcome.word) == (4, "BROKEN")
    (run_dir / "benchmark_summary.txt").unlink()
    assert (
        outcome_of(played(250, run_dir)).broke
        == "ansible-playbook ended with exit code 250 before the summary was made."
    )


def test_what_was_refused_is_2() -> None:
    outcome = outcome_of(played(2, None, ("benchmark_modell is not a setting.",)))
    assert (outcome.exit_code("strict"), outcome.word) == (2, "REFUSED")
    assert outcome.broke.endswith("\nbenchmark_modell is not a setting.")
    assert Outcome().exit_code("nodes") == 4


def test_words_for_ansible_playbook(tmp_path: Path) -> None:
    words = command_words(
        parse("--inventory", str(tmp_path), "--limit", "jw2:&gpu", "-e", "a=b c", "--policy", "nodes")
    )
    assert words == shlex.split(f"-i {tmp_path} --limit 'jw2:&gpu' -e benchmark_fail_on_invalid=false -e 'a=b c'")
    assert command_words(parse()) == []


def test_variables_are_given_as_to_ansible_playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my vars.yml").write_text("x: 1")
    monkeypatch.chdir(tmp_path)
    several = '{"benchmark_engine_options": {"max_tokens": 3}}'
    # The playbook is run from the checkout, whatever the directory is here.
    words = command_words(parse("-e", several, "-e", "@my vars.yml"))
    assert words == ["-e", several, "-e", f"@{tmp_path}/my vars.yml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inventory", "/nowhere"], "/nowhere does not exist"),
        (["-e", "benchmark_profile"], "give NAME=VALUE"),
        (["-e=--check=1"], "give NAME=VALUE"),
        (["-e", "@/nowhere/secrets.yml"], "there is no such file"),
        (["-e", "{benchmark_model: x"], "must be a JSON object"),
    ],
)
def test_bad_words_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        command_words(parse(*words))


def test_reports_are_made_by_aggregate_too(run_dir: Path, tmp_path: Path) -> None:
    add_node(run_dir, "jw2", asked(3), FAST)
    junit, page = tmp_path / "deep" / "junit.xml", tmp_path / "page.md"
    assert main(["aggregate", str(run_dir), "--junit", str(junit), "--markdown", str(page)]) == 0
    assert 'name="jw2"' in junit.read_text()
    assert "VALID" in page.read_text()
    assert main(["aggregate", str(run_dir), "--junit", f"{junit}/below"]) == 2
