"""What connections break with, as sentences: the kinds that no test can have the system make to order."""

from __future__ import annotations

import errno
import os

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from benchmark.node.serving.failures import Broken, ClientShortage, Unreachable, explained

URL = "http://server:8000"
KEY = ConnectionKey("server", 8000, False, True, None, None, None)


def refused(number: int) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEY, OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (refused(errno.EMFILE), "file handles for this process"),
        (refused(errno.ENFILE), "file handles for the whole machine"),
        (refused(errno.EADDRNOTAVAIL), "local ports"),
        (refused(errno.ENOBUFS), "the kernel's memory for sockets"),
        (refused(errno.ENOMEM), "memory"),
        (aiohttp.ClientOSError(errno.ENOBUFS, "No buffer space available"), "the kernel's memory for sockets"),
        (OSError(errno.EMFILE, "Too many open files"), "file handles for this process"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        # Of several addresses, each with an error of its own.
        (
            aiohttp.ClientConnectorError(KEY, OSError("Multiple exceptions: [Errno 24] a, [Errno 111] b")),
            "file handles",
        ),
    ],
)
def test_what_the_client_ran_out_of_is_named(error: Exception, what: str) -> None:
    reported = explained(error, URL, "1 s")
    assert isinstance(reported, ClientShortage)
    assert str(reported).startswith(f"The client on this node, not the server, ran out of {what}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused(errno.ECONNREFUSED), Unreachable),
        (refused(errno.EHOSTUNREACH), Unreachable),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), Broken),
        (aiohttp.ServerDisconnectedError(), Broken),
        (ValueError("no connection's"), type(None)),
        (OSError(errno.ENOSPC, "No space left on device"), type(None)),
    ],
)
def test_what_is_not_of_that_kind(error: Exception, kind: type) -> None:
    assert type(explained(error, URL, "1 s")) is kind


def test_a_never_reached_address_is_no_shortage_of_ports() -> None:
    assert isinstance(explained(refused(errno.EADDRNOTAVAIL), URL, "1 s", reached=False), Unreachable)
