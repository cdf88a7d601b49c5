"""Fetch a run's files from its node: packed there, streamed into a file, and unpacked as untrusted data."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmark.errors import InputError
from benchmark.files import MAX_SAMPLES_BYTES
from benchmark.fleet.errors import Lost, NodeError
from benchmark.fleet.programs import why_refused
from benchmark.fleet.session import ANSWER_S, Session
from benchmark.fleet.unpack import KNOWN, unpack
from benchmark.unwritable import errno_in, on_controller

# Enough to pack the most that a node may send, 2 GiB, and as long again to fetch it at 10 MB/s.
TRANSFER_S = 400
# Beside a node's files on the controller: the archive that it sent, until that is unpacked.
ARCHIVE = "fetched.tar.gz"


async def bring(session: Session, place: Path, on_node: str) -> list[str]:
    """Fetch the files of the run in `on_node` into `place`; return their names.

    The archive itself shows whether it is complete. Raises Lost if the connection broke, NodeError if nothing could be
    fetched. After an exception the session may be in the middle of an answer.
    """
    archive, expected, said, size, silence_s = place / ARCHIVE, [], "", 0, float(TRANSFER_S)
    session.send("pack")
    try:
        while True:
            word, rest = await session.receive(silence_s)
            if word == "lies" and KNOWN.fullmatch(rest):
                expected.append(rest)
            elif word == "said":
                said = " ".join(rest.split())
            elif word == "ended":
                raise NodeError(why_refused("pack.sh", "there is no run", on_node))
            elif word == "packed":
                break
            elif word == "archive":
                size = int(rest) if rest.strip().isdecimal() and len(rest) < 19 else 0
                if not 0 < size <= MAX_SAMPLES_BYTES:
                    break
                async with asyncio.timeout(TRANSFER_S):
                    await session.save(size, archive, ANSWER_S)
        if not 0 < size <= MAX_SAMPLES_BYTES:
            raise NodeError(why_refused("pack.sh", said or "it packed nothing", on_node))
        return await _in_thread(functools.partial(unpack, archive, place, expected=expected))
    except TimeoutError:  # before OSError, its base class
        raise Lost(f"accepted a command but gave no answer within {TRANSFER_S} s") from None
    except (InputError, OSError) as error:
        if errno_in(said):
            raise NodeError(why_refused("pack.sh", said, on_node)) from error
        reason = on_controller(error, place) if isinstance(error, OSError) else f"{error}"
        reasons = [reason.rstrip("."), *([f"tar said: {said}"] if said else [])]
        raise NodeError("; ".join(reasons) + ".") from error
    finally:
        archive.unlink(missing_ok=True)


async def _in_thread(work: Callable[[], list[str]]) -> list[str]:
    """Run CPU-bound work in a thread and wait for its end, even if interrupted."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        with suppress(Exception):
            await working
        raise
