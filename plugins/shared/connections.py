"""Turn Ansible's connections into those of `benchmark.fleet`: from one worker to all nodes of a play."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any

import checkout  # noqa: F401 # puts the checkout on the path
from ansible import constants
from ansible.errors import AnsibleError

from benchmark.fleet.login_shell import far_command
from benchmark.fleet.ssh import Ssh

# The connection plugins that support sessions with a running program.
SSH, LOCAL = "ssh", "local"
SESSIONS = (SSH, LOCAL, "ansible.builtin.ssh", "ansible.builtin.local")
OPTIONS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
# The option with the node's address.
HOST = "host"
# Words in ssh's options that make it use a jump host.
JUMPS = ("proxyjump", "proxycommand", "-j")


class Connections:
    """The connections of one task to many nodes, each as ansible-core would make it for a task on that node.

    Computing the options takes milliseconds, and is done once for all nodes that differ only in their address.
    """

    def __init__(self, action: Any) -> None:
        self._action = action
        self._read: dict[str, tuple[str, ...]] = {}
        self._alike: dict[tuple[str, str], Any] = {}

    def ssh_to(self, node: str, variables: Mapping[str, Any]) -> Ssh:
        """Return how to reach the node with these variables."""
        return way_of(self.connect(node, variables), lambda: self.connect(node, variables))

    def connect(self, node: str, variables: Mapping[str, Any]) -> Any:
        """Return a connection to the node with these variables."""
        kind = connection_kind(self._action, variables)
        if kind not in self._read:
            self._read[kind] = _variables_read(self._make(kind))
        given = {name: variables[name] for name in self._read[kind] if name in variables}
        alike = kind, repr(given)
        if alike not in self._alike:
            self._alike[alike] = self._with_options(self._make(kind), given)
        connection = copy(self._alike[alike])
        connection._options, connection._play_context = copy(connection._options), copy(connection._play_context)
        # The ssh plugin sets it from its option only when it first runs a command.
        connection.host = connection._play_context.remote_addr = str(variables.get("ansible_host", node))
        if HOST in connection.option_definitions:
            connection.set_option(HOST, connection.host)
        keep_apart(connection)
        return connection

    def _make(self, kind: str) -> Any:
        action = self._action
        connection, _ = action._shared_loader_obj.connection_loader.get_with_context(
            kind,
            action._play_context.copy(),
            new_stdin=None,
            task_uuid=action._task._uuid,
            ansible_playbook_pid=str(os.getppid()),
        )
        return connection

    def _with_options(self, connection: Any, given: Mapping[str, Any]) -> Any:
        context, keys = connection._play_context, self._action._task.dump_attrs()
        keys["timeout"] = context.timeout
        if context.password:
            keys["password"] = context.password
        del keys["retries"]
        for plugin in (connection, connection._shell):
            plugin.set_options(task_keys=keys, var_options=given)
        return connection


def _variables_read(connection: Any) -> tuple[str, ...]:
    """Return the names of the variables for its options, without those for the node's address."""
    where = {entry["name"] for entry in connection.option_definitions.get(HOST, {}).get("vars", ())}
    plugins = (("connection", connection), ("shell", connection._shell))
    names = [name for kind, plugin in plugins for name in constants.config.get_plugin_vars(kind, plugin._load_name)]
    return tuple(name for name in names if name not in where)


def connection_kind(action: Any, variables: Mapping[str, Any]) -> str:
    """Return the name of the node's connection plugin."""
    return str(variables.get("ansible_connection") or action._task.connection)


def way_of(connection: Any, another: Any = None) -> Ssh:
    """Return how a connection reaches its node; `another` makes a connection like it."""
    if connection.transport == LOCAL:
        return Ssh("this machine", lambda line: ["/bin/sh", "-c", line])
    login = None
    if connection.get_option("password"):
        login = partial(_log_in, another() if another else connection)
        # Sessions share the connection that this opens, and must not ask for a password.
        connection.set_option("password", None)
        connection._play_context.password = ""
    return Ssh(
        address=str(connection.host),
        command=lambda line: session_words(connection, line),
        login=login,
        disconnect=lambda: _words(connection, "-O", "stop", connection.host),
        alone=lambda: _words(connection, "-S", "none", connection.host, "true"),
        through_jump=bool(_jump(connection)),
    )


def keep_apart(connection: Any) -> None:
    """Give nodes with the same address behind different jump hosts separate shared connections.

    ansible-core names a shared connection only after address, port and user, so both names would reach one node.
    """
    if connection.transport == SSH and not connection.get_option("control_path") and (jump := _jump(connection)):
        parts = [jump, *(str(connection.get_option(name)) for name in (HOST, "port", "remote_user"))]
        # As short as ansible-core's own names: the path of a socket must be short.
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
        connection.set_option("control_path", f"%(directory)s/{name}")


def _jump(connection: Any) -> str:
    """Return ssh's options if they make it use a jump host; else an empty text."""
    words = " ".join(str(connection.get_option(name) or "") for name in OPTIONS)
    return words if any(jump in words.lower() for jump in JUMPS) else ""


def session_words(connection: Any, line: str) -> list[Any]:
    """Return the command that runs a line of /bin/sh on the node in a session."""
    if connection.transport == LOCAL:
        return ["/bin/sh", "-c", line]
    # No terminal, which the user's settings may request: it would change the data.
    return _words(connection, "-T", connection.host, far_command(line))


def _words(connection: Any, *more: str) -> list[Any]:
    # This is how the connection's own exec_command makes its command.
    try:
        words: list[Any] = connection._build_command(connection.get_option("ssh_executable"), "ssh", *more)
    except AnsibleError as error:
        # As an OSError, which callers treat as a failed connection to this node.
        raise OSError(str(error)) from error
    return words


def _log_in(connection: Any) -> None:
    """Open the connection that sessions share, unless it is open; Ansible knows how to pass passwords to ssh."""
    code, _, err = connection.exec_command(far_command("true"), in_data=None, sudoable=False)
    if code:
        raise OSError(err.decode(errors="replace"))
