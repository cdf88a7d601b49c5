"""Failures between the client and a server, and the sentences that report them."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from benchmark.node.serving.reply import ReplyError
from benchmark.node.serving.words import shown


class HttpError(ReplyError):
    """The server answered with a status other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


class NotConnected(ReplyError):
    """No connection could be opened."""


class Unreachable(NotConnected):
    """Nothing answers at the address."""


class TlsFailure(NotConnected):
    """Something answers, but no TLS connection to it can be made or trusted."""


class Broken(ReplyError):
    """A connection ended before the answer was complete."""


class ClientShortage(ReplyError):
    """The client's node ran out of a resource: no server is at fault."""


# errno -> the resource that ran out, and the remedy.
_SHORT = {
    errno.EMFILE: ("file handles for this process", "raise the hard limit (ulimit -Hn; systemd: LimitNOFILE)"),
    errno.ENFILE: ("file handles for the whole machine", "raise fs.file-max"),
    errno.EADDRNOTAVAIL: (
        "local ports for connections to the server",
        "widen net.ipv4.ip_local_port_range, or list several addresses of the server in benchmark_endpoint_urls",
    ),
    errno.ENOBUFS: (
        "the kernel's memory for sockets",
        "raise net.core.wmem_max and net.ipv4.tcp_mem, or issue fewer queries",
    ),
    errno.ENOMEM: ("memory", "end other programs that use memory on this node"),
}
_THREADS = ("threads", "raise this user's limit (ulimit -u; systemd: TasksMax)")
# OpenSSL's codes for a bad certificate (X509_V_ERR_*).
_NOT_IN_TIME = {9: "is not valid yet", 10: "has expired"}
_OTHER_NAME = (62, 64)
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
# OpenSSL's reasons for an answer that is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE")
SPEAKS_TLS_S = 1.5


def explained(error: Exception, url: str, limit: str, proxy: str = "", reached: bool = True) -> ReplyError | None:
    """Return the error that reports a failed connection to the server at `url`; None: the connection did not fail.

    `limit`: the time limit of an answer, in words; `proxy`: the variable that names the proxy; `reached`: whether the
    server has answered before.
    """
    if short := _shortage(error, reached):
        what, remedy = short
        return ClientShortage(f"The client on this node, not the server, ran out of {what}: {remedy}.")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        # Only the reason: the proxy's address comes from the environment and may be secret.
        return Unreachable(f"The proxy on the way to {url} ({proxy}) cannot be reached: {_reason(error.os_error)}.")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        user = f": put user and password into {proxy}" if error.status == 407 else ""
        return Unreachable(f"The proxy on the way to {url} ({proxy}) answers with HTTP {error.status}{user}.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _unknown_name(error, url, proxy)
    if (cause := _tls_error(error)) is not None:
        return TlsFailure(_tls(cause, url))
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        reported = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        return Unreachable(f"{url} cannot be reached: {shown(str(reported))}.")
    if isinstance(error, asyncio.TimeoutError):
        return ReplyError(f"{url} gave no complete answer within {limit}.")
    if isinstance(error, aiohttp.ClientError):
        return Broken(f"The connection to {url} broke: {shown(str(error)) or type(error).__name__}")
    return None


async def speaks_tls(url: str) -> bool:
    """Return whether the address of a plain http:// URL accepts TLS."""
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    with suppress(OSError, asyncio.TimeoutError, ValueError):
        opening = asyncio.open_connection(parts.hostname, parts.port or 80, ssl=context)
        _, writer = await asyncio.wait_for(opening, SPEAKS_TLS_S)
        writer.close()
        return True
    return False


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return OpenSSL's error; aiohttp's own errors inherit from its classes too, but have no details."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, aiohttp.ClientError):
            return error
        error = error.__cause__
    return None


def _shortage(error: Exception, reached: bool) -> tuple[str, str] | None:
    if isinstance(error, MemoryError):
        return _SHORT[errno.ENOMEM]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _THREADS
    reported = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if not isinstance(reported, OSError):
        return None
    # If a name has several addresses, their errors come as one text.
    numbers = (
        {reported.errno}
        if reported.errno
        else {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(reported))}
    )
    found = next((number for number in _SHORT if number in numbers), None)
    if found == errno.EADDRNOTAVAIL and (not reached or (len(numbers) > 1 and not _has_ipv6_loopback())):
        return None  # this node has no route to the address, as when IPv6 is disabled
    return _SHORT[found] if found else None


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "no answer"


def _unknown_name(error: aiohttp.ClientConnectorDNSError, url: str, proxy: str) -> Unreachable:
    late = isinstance(error.os_error, socket.gaierror) and error.os_error.errno == socket.EAI_AGAIN
    why = "the node's name server does not answer" if late else "this node finds no address for that name"
    if proxy:
        return Unreachable(f"The proxy on the way to {url} ({proxy}) cannot be reached: {why}.")
    host = urlsplit(url).hostname
    return Unreachable(
        f"{url} cannot be reached: {host} has no address ({why}). Check benchmark_endpoint_urls and the node's "
        "/etc/resolv.conf and /etc/hosts."
    )


def _tls(error: ssl.SSLError, url: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        said, code = shown(error.verify_message), error.verify_code
        if code in _OTHER_NAME:
            return (
                f"The certificate of {url} is for another name: {said.rstrip('.')}. Use a name from the certificate in "
                "benchmark_endpoint_urls."
            )
        if code in _NOT_IN_TIME:
            return f"The certificate of {url} {_NOT_IN_TIME[code]}: renew it, or correct this node's clock."
        if code in _UNKNOWN_AUTHORITY:
            return (
                f"The certificate of {url} is from an authority that this node does not trust ({said}): set "
                "benchmark_endpoint_ca_file to a file on the node with its CA."
            )
        return f"The certificate of {url} cannot be trusted ({said})."
    reason = error.reason or shown(str(error))
    if reason in _NO_TLS:
        return f"{url} answers without TLS: write http:// in benchmark_endpoint_urls if it is a plain HTTP server."
    return f"TLS with {url} failed: {reason.replace('_', ' ').lower()}."
