"""Say in sentences why a node failed, and stop a run that still goes on there."""

from __future__ import annotations

import traceback
from contextlib import suppress

from benchmark.errors import InputError
from benchmark.files import write_atomic
from benchmark.fleet.errors import Ended, Lost, NodeError
from benchmark.fleet.node import Node
from benchmark.fleet.remote_run import RemoteRun
from benchmark.fleet.session import ANSWER_S
from benchmark.fleet.ssh import unreachable
from benchmark.unwritable import on_controller, remedy

# Beside a node's other files: the traceback of an unexpected exception.
TRACEBACK = "controller_traceback.txt"


def reason_of(error: NodeError | InputError | OSError, node: Node) -> str:
    """Return why a node failed, for an expected error that ended its coroutine."""
    if isinstance(error, Lost):
        return unreachable(str(error), node.ssh.address)
    if isinstance(error, TimeoutError):
        return unreachable(f"accepted a command but gave no answer within {ANSWER_S} s", node.ssh.address)
    if isinstance(error, OSError):
        if remedy(error.errno):  # of the controller's disk: nothing else is written from here
            return on_controller(error, node.place)
        return str(error) if error.filename else fault(error, node)
    return str(error) or type(error).__name__


def fault(error: Exception, node: Node) -> str:
    """Return the description of an unexpected exception, and write its traceback to a file."""
    said, path = f"{type(error).__name__}: {error}", node.place / TRACEBACK
    with suppress(OSError):
        write_atomic(path, traceback.format_exc())
        return f"{said}; traceback: {path}."
    return said


async def exclude(run: RemoteRun, reason: str, stopped: str) -> str:
    """Stop a node's run, fetch its files, and return why it failed. `stopped` is appended if a run was stopped."""
    try:
        ran = await run.stop()
    except (Lost, TimeoutError) as error:
        said = str(error)[-200:]
        lost = "" if said in reason else f", the SSH connection is lost ({said})"
        left = run.node.stays if run.begun else run.node.again
        return f"{reason} The request to stop did not reach it{lost}: {run.node.ends} {left}"
    except NodeError as error:
        return str(error)
    return f"{reason} {stopped}" if ran else reason


async def stop_interrupted(run: RemoteRun, interruption: str) -> str:
    """Stop an interrupted run, fetch its files, and return why it failed; empty if it had completed."""
    try:
        await run.stop_interrupted(interruption)
    except Ended:
        return f"{interruption}, and its run is gone from the node."
    except (NodeError, InputError, OSError) as error:
        return str(error) or type(error).__name__
    return ""
