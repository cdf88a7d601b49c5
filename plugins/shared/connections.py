"""Connections to the other nodes of a play, from the one worker that speaks with all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible import constants


def connect(action: Any, node: str, variables: Mapping[str, Any]) -> Any:
    """Return a connection to the node that has these variables, as ansible-core makes one for a task there."""
    context = action._play_context.copy()
    context.remote_addr = str(variables.get("ansible_host", node))
    kind = str(variables.get("ansible_connection") or action._task.connection)
    connection, _ = action._shared_loader_obj.connection_loader.get_with_context(
        kind, context, new_stdin=None, task_uuid=action._task._uuid, ansible_playbook_pid=str(os.getppid())
    )
    keys = action._task.dump_attrs()
    keys["timeout"] = context.timeout
    if context.password:
        keys["password"] = context.password
    del keys["retries"]
    for kind_of_plugin, plugin in (("connection", connection), ("shell", connection._shell)):
        names = constants.config.get_plugin_vars(kind_of_plugin, plugin._load_name)
        plugin.set_options(task_keys=keys, var_options={name: variables[name] for name in names if name in variables})
    connection.host = context.remote_addr  # ssh sets it when it first runs a command
    return connection
