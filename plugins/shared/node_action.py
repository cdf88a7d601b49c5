"""What the project's action plugins share: a lost node is a failure with a sentence, which a rescue can catch.

Ansible's own UNREACHABLE cannot be rescued: the node would leave the play, and its reason with it.
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import before_forks  # noqa: F401 # loads what workers share
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from bounds import TooMuch, bounded
from checkout import CHECKOUT as CHECKOUT  # for the actions
from far_shell import plain
from interruption import Interrupted, end_own_children, interrupted_by, interruptible

from benchmark.files import read_record
from benchmark.rundir import NODES, ORDER, RunOrder
from benchmark.settings import Settings

# For a command that answers in a second on a node that is well: a disk or a driver that hangs never answers.
ANSWER_S = 60
# The limit on the node itself comes after the controller's, which has the better sentence; then it kills.
AFTER_S = 5
# What modules are asked for besides their own time limits: to be sent, to start, to answer.
MODULE_S = 120


class NodeFailure(Exception):
    """What went wrong on a node, in sentences for a person, one a line."""


class NodeAction(ActionBase):  # type: ignore[misc] # ansible-core has no types
    """Base of the actions: subclasses implement `act` and raise NodeFailure."""

    _supports_check_mode = True
    # Ansible would offer to move files for the task; these actions move their own.
    TRANSFERS_FILES = False
    # Whether Ctrl-C ends the action; one that only keeps what is known already is left to it.
    interruptible = True
    interrupted = False
    heard: Mapping[str, str] = MappingProxyType({})
    """What looks printed that succeeded, by the command; see `look`."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run `act` and return its result; every failure carries `stage` (the role) and `msg` (the reason)."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars: Mapping[str, Any] = task_vars or {}
        # Whatever the user's umask lets others do: a run's files are not theirs to change.
        os.umask(os.umask(0o077) | 0o022)
        try:
            with self.alone():
                result.update(self._act() if self.interruptible else self.act())
        except NodeFailure as failure:
            result.update(failed=True, msg=str(failure))
        except TooMuch as much:
            result.update(failed=True, msg=str(much))
        except (AnsibleError, OSError) as error:
            result.update(failed=True, msg=self._broken(error))
        if result.get("failed"):
            result |= {"stage": self.stage, "interrupted": self.interrupted}
        return result

    def _broken(self, error: Exception) -> str:
        """Return one sentence for what went wrong on the way to the node, or in Ansible's own work there."""
        if "No space left on device" in str(error):
            # Told as a lost connection where it was a directory that could not be made.
            place = self.setting("ansible_remote_tmp", "~/.ansible/tmp")
            return (
                f"No space left on device: Ansible's temporary directory on the node ({place}) cannot be written to. "
                "Make room, or set ansible_remote_tmp to a larger disk."
            )
        if isinstance(error, AnsibleConnectionFailure):
            return unreachable(str(error), self.address)
        return f"{type(error).__name__}: {error}"

    def _act(self) -> dict[str, Any]:
        try:
            with interruptible():
                return self.act()
        except Interrupted:
            end_own_children()
            self.interrupted = True
            return self.after_interruption()

    def after_interruption(self) -> dict[str, Any]:
        """Leave the node as it is to be left; return a result where there is one nevertheless."""
        raise NodeFailure(f"{self.interruption} before it measured.")

    @property
    def interruption(self) -> str:
        """The beginning of a sentence: what stopped the playbook."""
        return "Interrupted by Ctrl-C" if interrupted_by() == "SIGINT" else f"Interrupted by {interrupted_by()}"

    @abstractmethod
    def act(self) -> dict[str, Any]:
        """Do the work; return the task's result (`changed`, ...)."""

    @property
    def stage(self) -> str:
        """The role that the task belongs to."""
        role = getattr(self._task, "_role", None)
        return str(role.get_name() if role else self._task.action)

    @property
    def node(self) -> str:
        """The node's name in the inventory."""
        return str(self.task_vars["inventory_hostname"])

    @property
    def address(self) -> str:
        """Where Ansible looks for the node."""
        return str(self.setting("ansible_host", self.node))

    @property
    def check_mode(self) -> bool:
        """Whether the playbook runs with --check: say what would change, change nothing."""
        return bool(self._task.check_mode)

    def alone(self) -> AbstractContextManager[None]:
        """What is held while `act` works; nothing, unless a subclass says otherwise."""
        return nullcontext()

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a variable of the node, templated; a setting that nobody gave has the default of Settings.

        Once a run is open, settings are those that the node is asked to run with, in one that is resumed too.
        """
        field = Settings.model_fields.get(name)
        if field is not None and self._asked is not None:
            return getattr(self._asked, name)
        if name in self.task_vars:
            return self._templar.template(self.task_vars[name])
        return default if field is None else field.default

    @cached_property
    def _asked(self) -> Settings | None:
        run = self.task_vars.get("benchmark_run", {})
        run_dir = run.get("settings_from") or run.get("dir")
        order = Path(run_dir) / NODES / self.node / ORDER if run_dir else None
        return read_record(order, RunOrder).resolved.settings if order and order.exists() else None

    def looks(self) -> list[str]:
        """Return the commands that `look` will be asked for, as far as that is known before."""
        return []

    def look(self, command: str) -> tuple[int, str, str]:
        """Run a command as `shell` does that changes nothing: its answer may have been heard already."""
        return (0, self.heard[command], "") if command in self.heard else self.shell(command)

    def shell(self, command: str, stdin: str | None = None, answer_s: float = ANSWER_S) -> tuple[int, str, str]:
        """Run a simple command of /bin/sh on the node (no list, no pipe), without starting a Python there.

        Returns exit code, stdout and stderr. `stdin` appears in no process list and in no output. A node that has not
        answered within `answer_s` seconds is taken for lost, and what it started for us is ended there.
        """
        there_s = math.ceil(answer_s) + AFTER_S
        limit = f"command -v timeout >/dev/null && limit='timeout -k {AFTER_S} {there_s}'"
        with self.bounded(answer_s):
            done = self._low_level_execute_command(
                f"limit=; {limit}; exec $limit {command}",
                in_data=None if stdin is None else stdin.encode(),
                sudoable=False,
            )
        return done["rc"], done["stdout"], done["stderr"]

    def _low_level_execute_command(self, cmd: str, *args: Any, **more: Any) -> dict[str, Any]:
        """Run a command as ansible-core does, whatever the user's login shell on the node; its own commands too."""
        done: dict[str, Any] = super()._low_level_execute_command(plain(cmd), *args, **more)
        return done

    def module(self, name: str, within_s: float, **arguments: Any) -> dict[str, Any]:
        """Run one of the project's modules on the node; raise NodeFailure with its message where it failed.

        It runs with python_env_python, which preflight has looked at: the node's `python3` may be another, and too old.
        """
        python = str(self.setting("python_env_python"))
        if python.startswith("~"):
            python = str(self._remote_expand_user(python))
        with self.bounded(within_s + MODULE_S):
            done: dict[str, Any] = self._execute_module(
                module_name=name,
                module_args=arguments,
                task_vars={**self.task_vars, "ansible_python_interpreter": python},
            )
        if done.get("failed"):
            raise NodeFailure(str(done.get("msg") or "the module failed without a message"))
        return done

    def bounded(self, seconds: float) -> AbstractContextManager[None]:
        """Within, the node can cost the controller no more than that; see `bounds`."""
        # What is started on this very machine would inherit the limits.
        return nullcontext() if self._connection.transport == "local" else bounded(seconds)


def unreachable(message: str, address: str) -> str:
    """Return one sentence for a failed connection. ssh tells its reasons in text only, so its text is read."""
    reasons = {
        "REMOTE HOST IDENTIFICATION HAS CHANGED": (
            f"The SSH host key of {address} has changed: if the node was reinstalled, remove the old key "
            f"(ssh-keygen -R {address}) and accept the new one with ssh; if not, somebody may be in between."
        ),
        "Host key verification failed": (
            f"The SSH host key of {address} is not known: connect once with ssh and compare the fingerprint, "
            "or let playbooks/trust.yml show it."
        ),
        "Permission denied": (
            f"SSH login to {address} was refused: check ansible_user and that the node's authorized_keys "
            "holds this controller's public key (ssh-copy-id)."
        ),
        "Connection refused": f"Nothing answers SSH at {address}: is sshd running, and is ansible_port right?",
        "gave no answer": (
            f"{address} {' '.join(message.split())}: is it overloaded, or does a disk (NFS) or a driver hang there?"
        ),
        "timed out": f"{address} does not answer: is the node up, and is ansible_host right?",
        "Could not resolve hostname": f"The name {address} is not known: set ansible_host to the node's address.",
        "No route to host": f"There is no route to {address}: is the node up, and is ansible_host right?",
        "sshpass": "A password was given but the program sshpass is missing on the controller: use SSH keys.",
    }
    for text, sentence in reasons.items():
        if text in message:
            return f"Not reachable: {sentence}"
    return f"Not reachable: SSH to {address} failed: {' '.join(message.split())[-300:]}"
