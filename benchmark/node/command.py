"""`python3 -m benchmark run`: one node, by hand or started by Ansible."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError, RunError
from benchmark.files import read_record
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult
from benchmark.repeats import own_median, repeat_of
from benchmark.rundir import RunOrder, open_run
from benchmark.settings import from_environment, resolve_nodes
from benchmark.text import render_node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.epilog = (
        "Honours NODE_NAME (default: the host name), SERVER_TARGET_QPS, CUDA_VISIBLE_DEVICES and HF_HOME. "
        "The results go to results/<run id>/."
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting under the name that it has in the inventory, such as benchmark_device=cpu; may be repeated",
    )
    parser.add_argument(
        "--order",
        type=Path,
        metavar="FILE",
        help="an order that the controller wrote; nothing else is then honoured",
    )
    parser.add_argument(
        "--starting-lock",
        type=int,
        metavar="DESCRIPTOR",
        help="with --order: starting.lock beside it is open and locked as this; let go of when ready to measure",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run, print the result for whoever started it by hand, return the exit code."""
    request = _from_order(arguments.order, arguments.starting_lock) if arguments.order else _by_hand(arguments.set)
    settings = request.resolved.settings
    # Before transformers is imported: it reads HF_HOME then.
    os.environ["HF_HOME"] = str(Path(settings.hf_cache_dir).expanduser())
    result = run(request)
    if request.text:
        print(render_node(result))
        print(f"Files: {request.directory}", file=sys.stderr)
    return _exit_code(result)


def _exit_code(result: NodeResult) -> int:
    if result.status != "complete" or result.verdict is None:
        raise RunError(result.error or "The run did not complete.")
    verdict = repeat_of(result, own_median(result)).verdict
    return EXIT_VALID if verdict and verdict.valid else EXIT_INVALID


def _from_order(path: Path, starting_lock: int | None) -> RunRequest:
    order = read_record(path, RunOrder)
    return RunRequest(
        order.run_id,
        order.node,
        order.resolved,
        path.parent,
        order.wait_s,
        order.attempt,
        order.solo,
        starting_lock,
        text=False,
    )


def _by_hand(assignments: list[str]) -> RunRequest:
    # Here alone: a node that was given an order has no use for it, and loading it takes as long as a tenth of the rest.
    from yaml import safe_load as load

    node = os.environ.get("NODE_NAME") or socket.gethostname()
    variables: dict[str, Any] = from_environment()
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: give NAME=VALUE.")
        variables[name] = load(value)
    resolved = resolve_nodes({node: variables})
    run_id, run_dir = open_run(resolved, command=_command_line(node, assignments))
    directory = run_dir / "nodes" / node
    directory.mkdir(parents=True)
    return RunRequest(run_id=run_id, node=node, resolved=resolved[node], directory=directory)


def _command_line(node: str, assignments: list[str]) -> str:
    words = [f"NODE_NAME={node}", "python3 -m benchmark run", *(f"--set {a}" for a in assignments)]
    return " ".join(words)
