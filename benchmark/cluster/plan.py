"""`python3 -m benchmark plan`: check the settings of all nodes and open a run, for callers other than the playbook."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.errors import EXIT_VALID, InputError
from benchmark.rundir import open_run
from benchmark.settings import resolve_nodes

# A command line is recorded so that a run can be repeated; a token on it must not be.
_TOKEN = re.compile(r"(token['\"]?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,}'\"]+)|\bhf_[A-Za-z0-9]{16,}", re.IGNORECASE)


class Request(BaseModel):
    """What stdin holds."""

    model_config = ConfigDict(extra="forbid")

    nodes: dict[str, dict[str, Any]]
    hosts: dict[str, str] = {}
    command: str = ""
    versions: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plan`."""
    parser.epilog = (
        'Reads one JSON object from stdin: {"nodes": {name: {setting: value}}, "hosts": {name: address}, '
        '"command": "...", "versions": {...}}; paths in it are relative to the working directory. Prints one line: '
        '{"run_id", "results_dir", "nodes"}; the first two are null without --create.'
    )
    parser.add_argument("--create", action="store_true", help="make results/<run id>/ and point results/latest at it")


def main(arguments: argparse.Namespace) -> int:
    """Check, open the run where asked, print the plan. Raises InputError with everything that is wrong."""
    try:
        request = Request.model_validate_json(sys.stdin.read())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise InputError(f"stdin is not a request for a plan: {where}: {first['msg']}.") from None
    resolved = resolve_nodes(request.nodes)
    plan: dict[str, Any] = {"run_id": None, "results_dir": None}
    if arguments.create:
        run_id, directory = open_run(
            resolved, command=redact(request.command), versions=request.versions, hosts=request.hosts
        )
        plan = {"run_id": run_id, "results_dir": str(directory)}
    plan["nodes"] = {node: one.model_dump(mode="json") for node, one in resolved.items()}
    print(json.dumps(plan))
    return EXIT_VALID


def redact(command: str) -> str:
    """Return the command with every token in it replaced."""
    return _TOKEN.sub(lambda found: f"{found[1] or ''}***", command)
