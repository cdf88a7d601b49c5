"""Base of the project's action plugins: it turns a lost node into a failed task with a reason, which can be rescued.

Ansible's own UNREACHABLE cannot be rescued: the node would leave the play, and the reason would be lost.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import before_forks  # noqa: F401 # loads what workers share
from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from bounds import TooMuch, bounded
from checkout import CHECKOUT as CHECKOUT  # for the actions
from connections import Connections, keep_apart, way_of
from interruption import Interrupted, end_own_children, interrupted_by, interruptible, run_interruptible
from module_result import why_failed
from remembered import remembering
from reports import hand_on, show

from benchmark.cluster.given_names import KNOWN, meant, unread
from benchmark.cluster.inventory import GROUP
from benchmark.cluster.packages.environments import interpreter
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.fleet.command import run_command
from benchmark.fleet.errors import Lost, NodeError
from benchmark.fleet.login_shell import OWN_ENVIRONMENT, plain
from benchmark.fleet.session import ANSWER_S
from benchmark.fleet.ssh import Ssh, unreachable
from benchmark.profiles import Profile, load_profile
from benchmark.progress import parse
from benchmark.resolve import DECIDING, device_in_effect, in_effect
from benchmark.rundir import NODES, ORDER, RunOrder
from benchmark.settings import ResolvedSettings, Settings, check_settings
from benchmark.unwritable import errno_in, on_controller, remedy

# A variable of the example inventory, whose nodes do not exist.
EXAMPLE = "example_nodes"
CONFIG = CHECKOUT / "ansible.cfg"
# Cached, since one process may look at many nodes, each with several actions.
_profile, _order = cache(load_profile), cache(lambda path: read_record(path, RunOrder))
# Time for sending, starting and answering that modules get on top of their own time limits.
MODULE_S = 120


def raw_variables(task_vars: Mapping[str, Any], nodes: Iterable[str]) -> list[dict[str, Any]]:
    """Return each node's variables as written, with unrendered templates."""
    return [task_vars["hostvars"].raw_get(node) for node in nodes]


def is_no(answer: object) -> bool:
    """Return whether the user declined, which is not a failure; no answer is not declining."""
    return str(answer if answer is not None else "").strip().lower() in ("no", "n", "false")


class NodeFailure(Exception):
    """A failure of a node; the message has one sentence per line for the user."""


class NodeAction(ActionBase):  # type: ignore[misc] # ansible-core has no types
    """Base of the actions: subclasses implement `act` and raise NodeFailure."""

    _supports_check_mode = True
    # These actions transfer files themselves, without Ansible's help.
    TRANSFERS_FILES = False
    # Whether Ctrl-C ends the action; actions that only record known facts always finish.
    interruptible = True
    interrupted = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run `act` and return its result; every failure carries `stage` (the role) and `msg` (the reason)."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars: Mapping[str, Any] = remembering(task_vars or {})
        # Other users must not be able to change a run's files, whatever the user's umask.
        os.umask(os.umask(0o077) | 0o022)
        if self._requires_connection:
            keep_apart(self._connection)
        try:
            self._require_own_nodes()
            with self.alone():
                result.update(self._act() if self.interruptible else self.act())
        except NodeFailure as failure:
            result.update(failed=True, msg=str(failure))
        except Lost as lost:
            result.update(failed=True, msg=unreachable(str(lost), self.address))
        except (NodeError, TooMuch) as error:
            result.update(failed=True, msg=str(error))
        except (AnsibleError, OSError) as error:
            result.update(failed=True, msg=self._broken(error))
        if result.get("failed"):
            result |= {"stage": self.stage, "interrupted": self.interrupted}
        return result

    def _require_own_nodes(self) -> None:
        """Raise NodeFailure if our ansible.cfg is not in use or the inventory is still the example.

        Also if -e gives a name that nothing reads and that is almost one of ours: it would be silently ignored.
        """
        actions = map(Path, constants.config.get_config_value("DEFAULT_ACTION_PLUGIN_PATH"))
        # A user's own configuration must name our plugins.
        if CHECKOUT / "plugins/action" not in [path.resolve() for path in actions]:
            there, setting = shlex.quote(str(CHECKOUT)), shlex.quote(str(CONFIG))
            raise NodeFailure(f"{CONFIG} is not in use: cd {there} first, or set ANSIBLE_CONFIG={setting}.")
        if boolean(self.task_vars.get(EXAMPLE, False), strict=False):
            raise NodeFailure(
                "These are the example's nodes, and no node was contacted: copy inventory/hosts.example.yml to "
                f"inventory/hosts.yml, put your nodes there and delete the line {EXAMPLE}."
            )
        given = load_extra_vars(self._loader)
        if any(map(meant, given.keys() - KNOWN)):
            raw = raw_variables(self.task_vars, self.task_vars["groups"].get(GROUP, ()))
            if found := list(unread(given, raw)):
                raise NodeFailure("\n".join(found))

    def _broken(self, error: Exception) -> str:
        """Return one sentence for an error here, in the connection to the node, or in Ansible's own work there."""
        if isinstance(error, OSError) and remedy(error.errno):
            return on_controller(error, "A file", "")
        if number := errno_in(str(error)):
            # ansible-core reports it as a lost connection: it could not make a directory.
            place = self.setting("ansible_remote_tmp", "~/.ansible/tmp")
            return (
                f"{os.strerror(number)}: Ansible's temporary directory on the node ({place}) cannot be written to. "
                f"{remedy(number, 'ansible_remote_tmp')}"
            )
        if isinstance(error, AnsibleConnectionFailure):
            return unreachable(str(error), self.address)
        if isinstance(error, OSError) and error.filename is None:
            # The message alone does not say where.
            traceback.print_exc()
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
        """Clean up after an interruption; return a result if there is one nevertheless."""
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
        """The address at which Ansible reaches the node."""
        return str(self.setting("ansible_host", self.node))

    @property
    def check_mode(self) -> bool:
        """Whether the playbook runs with --check: say what would change, change nothing."""
        return bool(self._task.check_mode)

    def alone(self) -> AbstractContextManager[None]:
        """The lock to hold during `act`; none, unless a subclass overrides this."""
        return nullcontext()

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a variable of the node, templated; a setting that is not set has the default of Settings.

        Once a run is open, settings are those in the node's order, also in a resumed run. A setting is converted to its
        type, since -e name=value gives text. Raises NodeFailure for an invalid value.
        """
        field = Settings.model_fields.get(name)
        if field is not None and self._asked is not None:
            return getattr(self._asked.settings, name)
        if name not in self.task_vars:
            return default if field is None else field.default
        value = self._templar.template(self.task_vars[name])
        if field is None:
            return value
        try:
            return getattr(check_settings({name: value}), name)
        except InputError as error:
            raise NodeFailure(str(error)) from None

    @property
    def profile(self) -> Profile:
        """The profile in effect on the node. Raises NodeFailure for an invalid profile."""
        return self._effective[0]

    @property
    def device(self) -> str:
        """The node's device in that profile: `cuda` or `cpu`."""
        return self._effective[1]

    @cached_property
    def _effective(self) -> tuple[Profile, str]:
        if self._asked is not None:
            return self._asked.profile, self._asked.settings.benchmark_device
        settings = Settings.model_validate({name: self.setting(name) for name in DECIDING})
        try:
            profile = in_effect(_profile(settings.benchmark_profile), settings)
        except InputError as error:
            raise NodeFailure(str(error)) from None
        return profile, device_in_effect(profile, settings)

    @cached_property
    def _asked(self) -> ResolvedSettings | None:
        run = self.task_vars.get("benchmark_run", {})
        run_dir = run.get("settings_from") or run.get("dir")
        order = Path(run_dir) / NODES / self.node / ORDER if run_dir else None
        return _order(order).resolved if order and order.exists() else None

    def questions(self) -> list[str]:
        """Return read-only commands whose answers may show that there is nothing to do; see `settled`."""
        return []

    def settled(self, answers: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the task's result if the answers to `questions` show that there is nothing to do; else None.

        `answers`: the output of each command that succeeded. Raises NodeFailure if the node is unfit.
        """
        return None

    def shell(
        self, command: str, stdin: str | None = None, answer_s: float = ANSWER_S, progress: bool = False
    ) -> tuple[int, str, str]:
        """Run a simple /bin/sh command on the node (no list, no pipe), without starting Python there.

        Returns exit code, stdout and stderr. `stdin` appears in no process list and in no output. A node that does not
        answer within `answer_s` seconds counts as lost, and the command is ended there. With `progress`, the command's
        progress lines are shown.
        """
        given, heard = None if stdin is None else stdin.encode(), self.show_progress if progress else None
        return run_interruptible(run_command(self.way, command, given, answer_s, heard))

    def would(self, words: str) -> None:
        """In check mode: show what would be changed, how much, and where."""
        show(self.node, f"would {words}")

    def show_progress(self, words: str) -> None:
        """Show the node's progress in this role."""
        hand_on(self.node, None, parse(json.dumps({"state": self.stage, "detail": words})))

    @cached_property
    def connections(self) -> Connections:
        """The connections that the task itself makes to nodes."""
        return Connections(self)

    @cached_property
    def way(self) -> Ssh:
        """How to reach the node."""
        return way_of(self._connection, lambda: self.connections.connect(self.node, self.task_vars))

    def _low_level_execute_command(self, cmd: str, *args: Any, **more: Any) -> dict[str, Any]:
        """Run a command as ansible-core does, with any login shell and language of the user on the node.

        Output of that shell around the command's output is cut off: ansible-core would take it for a path.
        """
        halves = [secrets.token_hex(8), secrets.token_hex(8)]
        mark = f"printf '\\n%s%s\\n' {' '.join(halves)}"
        line = f"{OWN_ENVIRONMENT}{mark}; {{ {cmd}\n}}; code=$?; {mark}; exit $code"
        done: dict[str, Any] = super()._low_level_execute_command(plain(line), *args, **more)
        _, found, printed = str(done.get("stdout", "")).partition("".join(halves) + "\n")
        if found:
            printed = printed.partition("\n" + "".join(halves))[0]
            done |= {"stdout": printed, "stdout_lines": printed.splitlines()}
        return done

    def module(self, name: str, within_s: float, **arguments: Any) -> dict[str, Any]:
        """Run one of the project's modules on the node; raise NodeFailure with its message if it failed.

        It runs with the environment's Python, which preflight has checked: the node's `python3` may be too old.
        """
        python = interpreter("python_env", self.setting)
        if python.startswith("~"):
            python = str(self._remote_expand_user(python))
        with self.bounded(within_s + MODULE_S):
            done: dict[str, Any] = self._execute_module(
                module_name=name,
                module_args=arguments,
                task_vars={**self.task_vars, "ansible_python_interpreter": python},
            )
        if done.get("failed"):
            raise NodeFailure(why_failed(done, python))
        return done

    def bounded(self, seconds: float) -> AbstractContextManager[None]:
        """Limit what the node can cost the controller; see `bounds`."""
        # Not for a local connection: the processes on this machine would inherit the limits.
        return nullcontext() if self._connection.transport == "local" else bounded(seconds)
