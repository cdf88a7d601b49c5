"""Ask all nodes at the same time what preflight and the provisioning roles want to know first, each in one session."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from benchmark.fleet.errors import Lost, Refused
from benchmark.fleet.session import ANSWER_S, Session, call, calls_at_once
from benchmark.fleet.ssh import Ssh, unreachable

_PROGRAM = """mark=$1
ask() {
  printf '%s begin\\n' "$mark"
  eval "$1" 2> /dev/null < /dev/null
  printf '\\n%s end %s\\n' "$mark" "$?"
}
"""


@dataclass
class ProbeResult:
    """A node's answers: the output of each command that succeeded; or why it could not be asked."""

    answers: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    heard_ns: dict[str, int] = field(default_factory=dict, compare=False)
    """When each answer arrived, in nanoseconds since 1970 by this machine's clock."""


async def probe(asked: Mapping[str, tuple[Ssh, tuple[str, ...]]]) -> dict[str, ProbeResult]:
    """Return each node's answers to its commands, which change nothing there."""
    calls = calls_at_once()

    async def one(ssh: Ssh, commands: tuple[str, ...]) -> ProbeResult:
        try:
            return await _ask(ssh, commands, calls[ssh.through_jump])
        except Lost as lost:
            return ProbeResult(failure=unreachable(str(lost), ssh.address))
        except Refused as refused:
            return ProbeResult(failure=str(refused))

    results = await asyncio.gather(*(one(*each) for each in asked.values()))
    return dict(zip(asked, results, strict=True))


async def _ask(ssh: Ssh, commands: tuple[str, ...], calls: asyncio.Semaphore) -> ProbeResult:
    program = "".join([_PROGRAM, *(f"ask {shlex.quote(command)}\n" for command in commands)])
    result = ProbeResult()
    session = await call(ssh, program, ["probe", "{mark}"], ANSWER_S, calls)
    try:
        # Missing answers are left to the roles concerned.
        with suppress(Lost, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await _hear(session, commands, result)
    finally:
        session.close()
    return result


async def _hear(session: Session, commands: tuple[str, ...], result: ProbeResult) -> None:
    for command in commands:
        await session.receive(ANSWER_S)
        text, word, code = await session.receive_text(ANSWER_S)
        if (word, code) == ("end", "0"):
            result.answers[command], result.heard_ns[command] = text, time.time_ns()
