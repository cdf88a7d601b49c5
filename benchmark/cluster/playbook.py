"""Run playbooks/benchmark.yml through ansible-runner, and collect its output, the run that it opened, and its end."""

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
# Environment variable: the path of ansible-playbook if it is not on PATH.
CALLED_AS = "LLM_BENCHMARK_ANSIBLE_PLAYBOOK"
# The task that opens the run. It runs before any node is contacted, so no node's output can fake it.
OPENS = "benchmark_open"
# Most messages of failed tasks, and lines of the output, that are kept.
MAX_TOLD = 10


@dataclass
class Listener:
    """Receives ansible-runner's events one by one. The first value counts: later events do not override it."""

    keep_events: bool = False
    run_dir: Path | None = None
    pid: int | None = None
    """Of ansible-playbook."""
    failures: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_TOLD))
    interrupts: list[int] = field(default_factory=list)
    """The signals that were received."""

    def event(self, event: dict[str, Any]) -> bool:
        """Show the event's text and record what it says; return whether runner shall keep it in a file."""
        if text := str(event.get("stdout") or "").replace("\r\n", "\n"):
            self.tail.extend(line for line in text.splitlines() if line.strip())
            # A terminal with a small character set, or a reader that is gone, must not end the run.
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
        """Forward the first Ctrl-C, or termination, to ansible-playbook, which has its own session."""
        self.interrupts.append(number)
        if self.pid is not None and len(self.interrupts) == 1:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def give_up(self) -> bool:
        """Tell runner to kill: nothing was started that could end by itself, or the same signal came twice.

        A CI system that cancels a job sends SIGINT, and SIGTERM some seconds later: that counts as one request.
        """
        again = len(set(self.interrupts)) < len(self.interrupts)
        return again or (bool(self.interrupts) and self.pid is None)


@dataclass(frozen=True)
class Played:
    """How the playbook ended. `code`: ansible-playbook's exit code; `run_dir`: absent if no run was opened."""

    code: int
    run_dir: Path | None
    reported: tuple[str, ...]
    """Messages of failed tasks, or else the last lines of the output."""
    interrupted: bool


def play(words: Sequence[str], artifacts: Path | None = None) -> Played:
    """Run the checkout's playbook with additional arguments for ansible-playbook, showing its output as it comes.

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
    """Return the changes to this process's environment."""
    changes = {
        **utf8_locale(),
        # ansible-runner switches it off by default.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Runner replaces ansible.cfg's callback directory with its own, which it appends to this variable.
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "plugins/callback"),
        # ansible-playbook is beside this Python, whether or not the environment is activated.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }
    beside = str(Path(sys.executable).with_name(ANSIBLE_PLAYBOOK))
    if shutil.which(ANSIBLE_PLAYBOOK) != beside:
        changes[CALLED_AS] = beside  # for the command to run it again, in a shell without this PATH
    if not sys.stdout.isatty() and "ANSIBLE_FORCE_COLOR" not in os.environ:
        changes["ANSIBLE_NOCOLOR"] = "True"  # runner gives it a terminal, whatever ours is
    return changes


def _forget_the_environment(status: dict[str, Any], runner_config: Any) -> None:
    """Remove runner's file with the command and its whole environment, which may contain HF_TOKEN."""
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
