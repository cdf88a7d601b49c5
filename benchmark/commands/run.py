"""`python3 -m benchmark run`: measure one node, by hand or started by Ansible."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, cast

from benchmark.code import PACKAGE, SHORT, code_of, installed_sha256
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError, RunError, SetupError
from benchmark.files import read_record
from benchmark.node.environments import find_environment, hold_environments
from benchmark.node.request import RunRequest
from benchmark.node.serving.masking import MaskedStream
from benchmark.node.system import run
from benchmark.provisioned import ENGINES
from benchmark.records import Code, NodeResult, Owner
from benchmark.repeats import own_choice, repeat_of
from benchmark.resolve import resolve_nodes
from benchmark.rundir import RunOrder, open_run, user_name
from benchmark.secret_settings import NAMES, Secrets, parse_secrets
from benchmark.settings.by_hand import from_environment
from benchmark.text.node_result import render_node

# Environment variables, apart from secrets, that a run by hand honours.
HONOURED = ("SERVER_TARGET_QPS", "CUDA_VISIBLE_DEVICES", "HF_HOME")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.epilog = (
        "Honours NODE_NAME (default: the host name), SERVER_TARGET_QPS, CUDA_VISIBLE_DEVICES, HF_HOME, OPENAI_API_KEY "
        "and the proxy variables. "
        "The results go to results/<run id>/."
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting by its name in the inventory, such as benchmark_device=cpu; may be repeated",
    )
    parser.add_argument(
        "--order",
        type=Path,
        metavar="FILE",
        help="an order written by the controller; all other settings are then ignored",
    )
    parser.add_argument(
        "--secrets",
        metavar="FILE",
        help=f"a line of JSON with any of {', '.join(NAMES)}, from a file or (-) standard input",
    )
    parser.add_argument(
        "--starting-lock",
        type=int,
        metavar="DESCRIPTOR",
        help="with --order: file descriptor of the locked starting.lock beside it; released when ready to measure",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run, print the result if run by hand, and return the exit code."""
    secrets = _read_secrets(arguments.secrets) if arguments.secrets else Secrets()
    request = (
        _from_order(arguments.order, arguments.starting_lock)
        if arguments.order
        else _by_hand(arguments.set, arguments.secrets)
    )
    hold_environments(*([request.engine_dir] if request.engine_dir else []))
    settings = request.resolved.settings
    # Set before torch and transformers are imported, which read them. By default CUDA numbers the fastest GPU first, so
    # with different GPUs the numbers in CUDA_VISIBLE_DEVICES would not be those of nvidia-smi.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ["HF_HOME"] = str(Path(settings.hf_cache_dir).expanduser())
    with _masked_output(secrets):
        result = _run(replace(request, secrets=secrets))
    if request.text:
        print(render_node(result))
        print(f"Files: {request.directory}", file=sys.stderr)
    return _exit_code(request, result)


def _run(request: RunRequest) -> NodeResult:
    if request.group is None:
        return run(request)
    # Imported here: it loads the client for servers, which other runs do not need.
    from benchmark.node.group import run_part

    return run_part(request, request.group)


def _read_secrets(source: str) -> Secrets:
    """Return the secrets, in a process that has had their environment variables from its start.

    Many variables are only read once: by the dynamic linker (LD_LIBRARY_PATH), by Python, by libraries on import.
    """
    try:
        line = sys.stdin.readline() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--secrets: {source} cannot be read: {error.strerror}.") from None
    secrets = parse_secrets(line)
    if any(os.environ.get(name) != value for name, value in secrets.environment.items()):
        if source == "-":
            read, write = os.pipe()  # its buffer is larger than the longest line
            os.write(write, line.encode())
            os.close(write)
            os.dup2(read, sys.stdin.fileno())
        words = [sys.executable, *sys.orig_argv[1:]]
        sys.stdout.flush()
        os.execve(sys.executable, words, {**os.environ, **secrets.environment})  # noqa: S606 # this very command
    return secrets


@contextmanager
def _masked_output(secrets: Secrets) -> Iterator[None]:
    """A context in which nothing that Python prints contains a secret."""
    if not secrets.values:
        yield
        return
    out, err = MaskedStream(sys.stdout, secrets.mask), MaskedStream(sys.stderr, secrets.mask)
    with redirect_stdout(cast("TextIO", out)), redirect_stderr(cast("TextIO", err)):
        yield


def _exit_code(request: RunRequest, result: NodeResult) -> int:
    if result.status == "complete" and (request.serves or (request.group and not request.group.leads)):
        # The driver, or the head of its group, judges what it served.
        return EXIT_VALID
    if result.status != "complete" or result.verdict is None:
        raise RunError(result.error or "The run did not complete.")
    verdict = repeat_of(result, own_choice(result)).verdict
    return EXIT_VALID if verdict and verdict.valid else EXIT_INVALID


def _from_order(path: Path, starting_lock: int | None) -> RunRequest:
    order = read_record(path, RunOrder)
    _require_code(order.code)
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
        code=order.code,
        # A driver may share its machine with its own servers: it computes nothing itself.
        owner=order.owner.words if order.owner and not order.drives else "",
        first_step=order.first_step,
        burst_qps=order.burst_qps,
        serves=order.serves,
        drives=order.drives,
        group=order.group,
        limit_s=order.limit_s,
        engine_dir=_engine_dir(order),
    )


def _engine_dir(order: RunOrder) -> Path | None:
    engine = ENGINES.get(order.resolved.profile.engine)
    if engine is None or not engine.setting(order.resolved.settings, "manage"):
        return None
    return find_environment(engine.setting(order.resolved.settings, "dir"), order.environments.get(engine.name, ""))


def _require_code(wanted: Code | None) -> None:
    """Raise SetupError if the code that runs here is not the controller's."""
    if wanted is not None and (here := installed_sha256()) != wanted.sha256:
        raise SetupError(
            f"The code in {PACKAGE.parent} on this node is {here[:SHORT]}, but the controller's checkout is "
            f"{wanted.sha256[:SHORT]}: it was changed by hand, or by another checkout. Nothing was measured: remove "
            "that directory on the node and run playbooks/provision.yml."
        )


def _by_hand(assignments: list[str], source: str | None) -> RunRequest:
    # Imported here: a node with an order does not need it, and it adds a tenth to the start-up time.
    from yaml import safe_load as load

    node = os.environ.get("NODE_NAME") or socket.gethostname()
    variables: dict[str, Any] = from_environment()
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: give NAME=VALUE.")
        variables[name] = load(value)
    resolved = resolve_nodes({node: variables})
    code = code_of(PACKAGE.parent, installed_sha256())
    run_id, run_dir = open_run(resolved, command=command_line(node, assignments, source), code=code)
    directory = run_dir / "nodes" / node
    directory.mkdir(parents=True)
    owner = Owner(user=user_name(), host=socket.gethostname()).words
    return RunRequest(run_id=run_id, node=node, resolved=resolved[node], directory=directory, code=code, owner=owner)


def command_line(node: str, assignments: list[str], source: str | None) -> str:
    """Return the command that runs it again; secrets appear only as their file."""
    # These variables choose what is measured, as --set does.
    kept = {name: os.environ[name] for name in HONOURED if os.environ.get(name)}
    variables = [f"{name}={shlex.quote(value)}" for name, value in {"NODE_NAME": node, **kept}.items()]
    secrets = ["--secrets", source] if source and source != "-" else []
    words = [word for assignment in assignments for word in ("--set", assignment)]
    return " ".join([*variables, "python3 -m benchmark run", shlex.join([*words, *secrets])]).strip()
