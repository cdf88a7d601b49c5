"""Run playbooks/benchmark.yml through ansible-runner and listen: its output, the run that it opened, its end."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

from benchmark.cluster.utf8_locale import utf8_locale

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOK = "playbooks/benchmark.yml"
ANSIBLE_PLAYBOOK = "ansible-playbook"
# Of the environment: how ansible-playbook is to be called where its name alone does not do.
CALLED_AS = "LLM_BENCHMARK_ANSIBLE_PLAYBOOK"
# The task that opens the run. It comes before any node is asked, so no node's output can pose as it.
OPENS = "benchmark_open"
# Of messages of failed tasks that are kept, and of lines of the output.
MAX_TOLD = 10


@dataclass
class Listener:
    """Gets ansible-runner's events one by one. Who says something first is believed: nothing overrides it later."""

    keep_events: bool = False
    run_dir: Path | None = None
    pid: int | None = None
    """Of ansible-playbook."""
    failures: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_TOLD))
    interrupts: list[int] = field(default_factory=list)
    """The signals that came."""

    def event(self, event: dict[str, Any]) -> bool:
        """Show the event's text and remember what it tells; return whether runner is to keep it in a file."""
        if text := str(event.get("stdout") or "").replace("\r\n", "\n"):
            self.tail.extend(line for line in text.splitlines() if line.strip())
            # Neither a terminal of few characters nor a reader that is gone is a reason to leave the nodes alone.
            encoding = sys.stdout.encoding or "utf-8"
            with suppress(OSError):
                print(text.encode(encoding, "replace").decode(encoding), flush=True)
        data = event.get("event_data") or {}
        answer = data.get("res")
        if self.pid is None and event.get("event") == "playbook_on_start":
            self.pid = event.get("pid")
        elif event.get("event") == "runner_on_ok" and data.get("task_action") == OPENS:
            if self.run_dir is None and isinstance(answer, dict) and answer.get("dir"):
                self.run_dir = Path(answer["dir"])
        elif event.get("event") == "runner_on_failed" and isinstance(answer, dict) and len(self.failures) < MAX_TOLD:
            self.failures.append(str(answer.get("msg") or "A task failed without a message."))
        return self.keep_events

    def interrupt(self, number: int, *_: Any) -> None:
        """Hand the first Ctrl-C, or termination, on to ansible-playbook: it has a session of its own."""
        self.interrupts.append(number)
        if self.pid is not None and len(self.interrupts) == 1:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def give_up(self) -> bool:
        """Tell runner to kill: nothing was started that could end by itself, or it was asked for the same twice.

        A CI system that cancels a job sends SIGINT and some seconds later SIGTERM: that is being asked once.
        """
        again = len(set(self.interrupts)) < len(self.interrupts)
        return again or (bool(self.interrupts) and self.pid is None)


@dataclass(frozen=True)
class Played:
    """How it ended. `code` is ansible-playbook's exit code; `run_dir` is absent where no run was opened."""

    code: int
    run_dir: Path | None
    reported: tuple[str, ...]
    """What failed tasks said; else the output's last lines."""
    interrupted: bool


def play(words: Sequence[str], artifacts: Path | None = None) -> Played:
    """Run the checkout's playbook with further words of ansible-playbook's command line; show its output as it comes.

    `artifacts`: where runner leaves its events and the output; nowhere by default. Host keys are checked, whatever
    the environment says.
    """
    listener = Listener(keep_events=artifacts is not None)
    with tempfile.TemporaryDirectory(prefix="llm-benchmark-ci.") as private, _interrupts_to(listener):
        ended = ansible_runner.run(
            private_data_dir=private,
            project_dir=str(CHECKOUT),
            artifact_dir=str(artifacts or Path(private, "artifacts")),
            playbook=PLAYBOOK,
            cmdline=shlex.join(words),
            envvars=_environment(),
            suppress_env_files=True,
            quiet=True,  # the listener shows it
            event_handler=listener.event,
            status_handler=_forget_the_environment,
            cancel_callback=listener.give_up,
        )
    reported = listener.failures or list(listener.tail)
    code = ended.rc if isinstance(ended.rc, int) else 254
    return Played(code, listener.run_dir, tuple(reported), bool(listener.interrupts))


def _environment() -> dict[str, str]:
    """Return what differs from this process's environment."""
    changes = {
        **utf8_locale(),
        # ansible-runner switches it off where nobody says so.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Runner replaces ansible.cfg's directory of callbacks by its own, and adds it to this.
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "plugins/callback"),
        # ansible-playbook lies beside this Python, in an activated environment or not.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }
    beside = str(Path(sys.executable).with_name(ANSIBLE_PLAYBOOK))
    if shutil.which(ANSIBLE_PLAYBOOK) != beside:
        changes[CALLED_AS] = beside  # for the command to run it again: whose shell takes it has not this PATH
    if not sys.stdout.isatty() and "ANSIBLE_FORCE_COLOR" not in os.environ:
        changes["ANSIBLE_NOCOLOR"] = "True"  # runner gives it a terminal, whatever ours is
    return changes


def _forget_the_environment(status: dict[str, Any], runner_config: Any) -> None:
    """Remove the file in which runner keeps the command with its whole environment: HF_TOKEN may be in it."""
    if status["status"] == "running":
        Path(runner_config.artifact_dir, "command").unlink(missing_ok=True)


@contextmanager
def _interrupts_to(listener: Listener) -> Iterator[None]:
    before = {number: signal.signal(number, listener.interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
