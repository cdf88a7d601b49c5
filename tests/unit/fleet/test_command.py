"""What a command on a node said is whole, whichever way comes last."""

from __future__ import annotations

import asyncio

from benchmark.fleet.command import run_command
from benchmark.fleet.login_shell import far_command
from benchmark.fleet.ssh import Ssh


def test_what_comes_after_the_exit_code_is_heard() -> None:
    # Standard output and error are two ways, and either may be the faster one.
    late = '{ "$@" 2>&1 >&3 3>&- | { sleep 0.3; cat >&2; }; } 3>&1'
    way = Ssh("jw2", lambda line: ["sh", "-c", late, "ssh", "sh", "-c", far_command(line)])
    command = "sh -c 'echo why >&2; exit 4'"
    assert asyncio.run(run_command(way, command, None, 60)) == (4, "", "why\n")
    assert asyncio.run(run_command(way, command, None, 60, lambda line: None)) == (4, "", "why\n")


def test_a_login_without_standard_error_is_not_waited_for() -> None:
    way = Ssh("jw2", lambda line: ["sh", "-c", f"exec 2> /dev/null; {far_command(line)}"])
    assert asyncio.run(run_command(way, "sh -c 'echo why >&2; exit 4'", None, 60)) == (4, "", "")
