"""How the nodes that are gathered are spoken with."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from connections import connect
from far_shell import far_command
from gathering import Partner, State
from node_action import AFTER_S, ANSWER_S
from preparation import Preparation
from run_action import GRACE_S, look_s, script_text, start_input, start_words
from session import session_command
from speaking import Commands, Session, Speaker

from benchmark.rundir import GO, READY, TURN, TURN_OVER, RunOrder, of_repeat

# To let go of a connection that broke.
RESET_S = 5


@dataclass
class Gathered:
    """What is known of a node that is gathered."""

    order: RunOrder
    place: Path
    """Its directory of the run on the controller."""
    on_node: str
    """The directory on the node that holds its directory of this run."""
    variables: Mapping[str, Any]
    """Ansible's, of the node."""
    preparation: Preparation | None = None
    """Where it is looked at before its run is started."""
    repeat: int = 1
    limit: str = "benchmark_sync_timeout_s"
    """The setting that says by when it has to be ready, counted from `since_unix_ns`."""
    since_unix_ns: int = 0
    """0: from when its run is started, which is to be done."""
    launched_unix_ns: int = 0
    """When its run had been started, by the controller's clock."""
    offset_ns: int = 0
    """Of its clock, once it is known."""
    left: bool = False
    """Whether it is left behind."""

    @property
    def address(self) -> str:
        """Where Ansible looks for it."""
        return str(self.variables.get("ansible_host", self.order.node))

    @property
    def limit_s(self) -> int:
        """The value of that setting in seconds."""
        return int(getattr(self.order.resolved.settings, self.limit))

    @property
    def look(self) -> str:
        """The command line that looks at the node: nothing where it is not to be looked at."""
        # Ended there as well, should it hang.
        return f"timeout -k {AFTER_S} {ANSWER_S + AFTER_S} {self.preparation.looks.command}" if self.preparation else ""

    def script(self, name: str, *words: str) -> str:
        """Return the command line that runs a script of the role on the node."""
        return shlex.join(["sh", "-c", script_text(name), name, self.on_node, self.order.node, *words])


def partner(action: Any, node: Gathered, count: int) -> Partner:
    """Return the node as one of `count` that are spoken with."""
    connection, started = connect(action, node.order.node, node.variables), node.since_unix_ns > 0
    one = Partner(
        node.order.node,
        node.limit_s - ((time.time_ns() - node.since_unix_ns) / 1e9 if started else 0),
        lambda: _call(connection, node, look_s(count), one.state),
        partial(_reset, connection),
        State.WAITING if started else State.STARTING,
    )
    return one


def _call(connection: Any, node: Gathered, every_s: int, state: State) -> Speaker:
    ready, go = of_repeat(READY, node.repeat), of_repeat(GO, node.repeat)
    # It ends with its standard input; should a disk hang there, with this.
    measuring_s = node.order.resolved.settings.benchmark_timeout_s + GRACE_S
    there_s = node.limit_s + (node.order.wait_s or 0) + measuring_s + AFTER_S
    more = [str(max(1, every_s // 2)), script_text("pack.sh"), script_text("clean.sh")]
    start = state in (State.LOOKING, State.STARTING)
    given = start_input(node.place, node.variables) if start else ""
    if start:
        # With the end of its line.
        more += [script_text("start.sh"), *start_words(node.order), str(len(given.encode()) + 1)]
    if state is State.LOOKING:
        more.append(node.look)
    together = node.script("together.sh", ready, go, *more)
    command = session_command(connection, f"exec timeout -k {AFTER_S} {there_s} {together}")
    if command is not None:
        session = Session(command)
        if start:
            session.say(given)
        return session

    def execute(script: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        code, out, err = connection.exec_command(far_command(script), in_data=stdin, sudoable=False)
        return code, out.decode(errors="replace"), err.decode(errors="replace")

    def run(script: str) -> str:
        code, out, err = execute(script)
        if code:
            raise AnsibleConnectionFailure(err)
        return out

    def converse(say: Callable[[str], None], asked: Callable[[], str]) -> None:
        """Do what together.sh does."""

        def wait_for(file: str, word: str) -> None:
            state = "running"
            while state == "running":
                state, _, told = run(node.script("watch.sh", str(every_s), file, "", str(every_s))).partition("\n")
                say(f"{state} {told}" if state == "running" else f"{word} {told}" if state == file else state)

        if state is State.LOOKING:
            for line in execute(node.look)[1].splitlines():
                say(line)
            say("looked.")
            if asked() != "start":
                return
        if start:
            code, out, err = execute(node.script("start.sh", *start_words(node.order)), given.encode())
            say(f"refused {' '.join((err or out).split())}" if code else "started")
            if code:
                return
        wait_for(ready, "ready")
        while line := asked():
            word, _, time_ns = line.partition(" ")
            if word == "clock":
                say(f"clock {run('date +%s%N').strip()}")
            elif word == "turn":
                run(node.script("put.sh", TURN, ""))
                wait_for(TURN_OVER, "over")
            elif word in ("end", "pack", "clean"):
                return  # what it measured is brought by the node's own task
            else:
                run(node.script("put.sh", go, time_ns))
                say("told")

    return Commands(converse)


def _reset(connection: Any) -> None:
    """Have ssh let go of the master connection, so that the next session makes a new one."""
    if connection.transport != "ssh":
        return
    words = connection._build_command(connection.get_option("ssh_executable"), "ssh", "-O", "stop", connection.host)
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=RESET_S, check=False)
