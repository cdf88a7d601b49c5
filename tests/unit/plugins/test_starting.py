"""Nodes on this machine, each a directory and a shell, are looked at, and their runs started."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

import gathering as gathering_module
from gathering import State
from speaking import Session

from tests.unit.plugins.by_hand import SCRIPTS, Heard, Node, told


def environment(directory: Path, python: str) -> str:
    """Make an environment whose Python is a shell script."""
    (directory / "env/bin").mkdir(parents=True)
    (directory / "env/bin/python").write_text(f"#!/bin/sh\n{python}\n")
    (directory / "env/bin/python").chmod(0o755)
    return str(directory / "env")


@pytest.mark.parametrize("length", [100, 300_000])
def test_a_run_is_started_with_its_order_and_gathered(
    length: int, nodes: list[Node], heard: Heard, tmp_path: Path
) -> None:
    node, order = nodes[0], json.dumps({"run": "x" * length}, indent=2)
    node.place.rmdir()
    partner = node.starting(environment(tmp_path, "echo facts > ready.tmp; mv ready.tmp ready; sleep 60"), order)
    began_ns = time.time_ns()
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    assert (partner.state, partner.facts) == (State.READY, "facts")
    assert began_ns < partner.started_unix_ns < time.time_ns()
    assert (node.place / "order.json").read_text() == f"{order}\n"
    gathering.tell({node.name: 7}, time.time_ns() + 10**11)
    gathering.close()
    assert partner.state is State.TOLD
    subprocess.run(["sh", str(SCRIPTS / "stop.sh"), str(node.place.parent), node.name], check=True)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_secrets_reach_the_run_and_are_in_no_file_no_argument_and_no_environment(shell: str, tmp_path: Path) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to(program)
    line = json.dumps({"benchmark_endpoint_api_key": "sk-it's \\ $HOME `x` %s"})
    looks = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' > seen"
    python = environment(tmp_path, f"read -r secrets; {looks}; printf '%s' \"$secrets\" > got; wc -c > rest")
    done = subprocess.run(
        [
            tmp_path / "bin/sh",
            "-c",
            (SCRIPTS / "start.sh").read_text(),
            "start.sh",
            tmp_path / "run",
            "n",
            python,
            "60",
        ],
        input=f"{line}\n{{}}\n",
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("started\n", "")
    place = tmp_path / "run/n"
    until(lambda: (place / "exit_code").exists())
    assert (place / "exit_code").read_text() == "0\n", (place / "benchmark.log").read_text()
    assert (place / "got").read_text() == line
    assert (place / "rest").read_text().strip() == "0", "and the pipe ends"
    assert "--secrets" in (place / "seen").read_text()
    (place / "got").unlink()
    assert not [path for path in place.iterdir() if "sk-it" in path.read_text()]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nodes_that_lack_nothing_are_started_in_the_session_that_looked_at_them(
    nodes: list[Node], heard: Heard
) -> None:
    partners = [node.starting("/nowhere", "{}", look=f"echo {node.name}; false") for node in nodes]
    gathering = heard.gather(*partners)
    seen: dict[str, list[str]] = {}
    assert gathering.look(lambda one: seen.setdefault(one.node, one.looks) is not None)
    assert seen == {node.name: [node.name, "looked."] for node in nodes}
    assert told(partners) == [State.LOOKED] * 3
    gathering.wait_until_ready()
    gathering.close()
    assert [one.refused.strip() for one in partners] == [
        "there is no /nowhere/bin/python: run playbooks/provision.yml"
    ] * 3
    assert [node.calls for node in nodes] == [1] * 3


@pytest.mark.parametrize("look", ["echo lacks", "exit 3", "exec sleep 600", "kill $$"])
def test_where_one_lacks_something_or_says_nothing_none_is_started(
    look: str, nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "LAST_S", 1)
    partners = [node.starting("/nowhere", "{}", look="echo fine") for node in nodes[:2]]
    partners.append(nodes[2].starting("/nowhere", "{}", look=look))
    gathering = heard.gather(*partners)
    assert not gathering.look(lambda one: one.looks[0] == "fine")
    gathering.close()
    assert not any(one.refused for one in partners)


def test_a_node_that_is_lost_after_the_look_is_left_and_not_called_again(nodes: list[Node], heard: Heard) -> None:
    partner = nodes[0].partner(call=lambda: Session(["sh", "-c", "echo looked.; read -r word; exit 1"]))
    gathering = heard.gather(partner)
    assert gathering.look(lambda one: True)
    gathering.wait_until_ready()
    gathering.close()
    assert (partner.state, partner.started_unix_ns, partner.refused) == (State.LEFT, 0, "")


def test_a_run_that_cannot_be_started_is_refused_and_the_others_do_not_wait(nodes: list[Node], heard: Heard) -> None:
    refused, ready = nodes[:2]
    ready.put("ready", "facts")
    partners = [refused.starting("/nowhere", "{}"), ready.partner()]
    gathering = heard.gather(*partners)
    gathering.wait_until_ready()
    gathering.close()
    assert told(partners) == [State.LEFT, State.READY]
    assert partners[0].refused.strip() == "there is no /nowhere/bin/python: run playbooks/provision.yml"


@pytest.mark.parametrize("end", ["echo no route >&2; exit 255", "exec sleep 600"])
def test_a_node_that_is_lost_before_its_run_was_started_is_not_looked_for(
    end: str, nodes: list[Node], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "SILENCE_S", 1)
    partner = nodes[0].partner(call=lambda: Session(["sh", "-c", end]))
    partner.state = State.STARTING
    gathering = heard.gather(partner)
    gathering.wait_until_ready()
    gathering.close()
    assert (partner.state, partner.started_unix_ns) == (State.LEFT, 0)
    assert partner.lost in ("no route", "took a command and gave no answer within 1 s")
