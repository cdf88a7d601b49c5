"""The connections to servers: kept open between queries, or fresh for each request."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmark.errors import SetupError
from benchmark.node.serving.proxies import Proxy
from benchmark.secret_settings import Secrets

CONNECT_TIMEOUT_S = 30.0
# Servers on uvicorn close an idle connection after 5 s: the client closes it first, if it can.
KEEP_ALIVE_S = 4.0
# The sockets opened for the query of the current task: if there are none, its connection was used before. (aiohttp's
# tracing shows that too, but takes a tenth of the time of a short query.)
_OPENED: ContextVar[list[socket.socket]] = ContextVar("opened")


@dataclass(frozen=True)
class Address:
    """A server's address: `url` has no query string, as `query` is appended to every route."""

    url: str
    query: str = field(default="", repr=False)
    proxy: Proxy | None = None

    def at(self, route: str) -> str:
        """Return the URL of a route."""
        return f"{self.url}{route}?{self.query}" if self.query else self.url + route

    @property
    def proxy_url(self) -> str | None:
        """The proxy's URL, with user and password; None: there is no proxy."""
        return self.proxy.url if self.proxy else None

    @property
    def through(self) -> str:
        """The variable that named the proxy; empty: there is no proxy."""
        return self.proxy.variable if self.proxy else ""


def base_of(url: str) -> tuple[str, str]:
    """Return the base of routes from a setting's URL, without /v1 and trailing slashes, and its query string."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}", parts.query


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's authorities and those in a PEM file.

    Raises SetupError if the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_file:
        path = Path(ca_file).expanduser()
        try:
            context.load_verify_locations(cafile=str(path))
        except ssl.SSLError:
            raise SetupError(f"benchmark_endpoint_ca_file: {path} holds no certificate in PEM form.") from None
        except OSError as error:
            raise SetupError(f"benchmark_endpoint_ca_file: {path} cannot be read: {error.strerror}.") from None
    return context


class Connections:
    """Two sets of connections: reusable ones for queries, and fresh ones that are closed after one answer.

    Must be created on the event loop. The queries that need connections open them: connections opened in advance would
    be closed by either side before the end of the warm-up.
    """

    def __init__(self, secrets: Secrets, context: ssl.SSLContext | bool, timeout_s: float) -> None:
        self.resent = 0
        """Queries that were sent again on a fresh connection."""
        shared: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            "headers": {
                # A server would hold back a compressed stream until it has enough to compress.
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {secrets.api_key}"} if secrets.api_key else {}),
                **secrets.headers,
            },
        }
        kept = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context, socket_factory=_opened_for_its_query
        )
        self._kept = aiohttp.ClientSession(connector=kept, **shared)
        # A header "Connection: close" is not enough: aiohttp reuses such a connection if the server has not closed it
        # yet.
        closing = aiohttp.TCPConnector(limit=0, force_close=True, ssl=context)
        self._fresh = aiohttp.ClientSession(connector=closing, **shared)

    @asynccontextmanager
    async def get(self, address: Address, route: str, timeout_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """Get a route on a fresh connection; aiohttp retries once, on another one, if no byte comes back."""
        limit = aiohttp.ClientTimeout(total=timeout_s)
        async with self._fresh.get(
            address.at(route), timeout=limit, allow_redirects=False, proxy=address.proxy_url
        ) as response:
            yield response

    @asynccontextmanager
    async def post(
        self, address: Address, route: str, body: bytes, alone: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a query on a reusable connection or, `alone`, on a fresh one, and yield its response.

        A server may close a connection just when it is reused. So a query that was sent on a reused one and got no
        byte back is sent again on a fresh one. A query that was sent on a new one is sent again only if `alone`.
        """
        opened: list[socket.socket] = []
        _OPENED.set(opened)
        words: dict[str, Any] = {
            "data": body,
            "headers": {"Content-Type": "application/json"},
            "allow_redirects": False,
            "proxy": address.proxy_url,
        }
        try:
            session = self._fresh if alone else self._kept
            response = await session.post(address.at(route), **words)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError) as error:
            if (opened and not alone) or not _came_to_nothing(error):
                raise
            self.resent += not alone
            response = await self._fresh.post(address.at(route), **words)
        async with response:
            yield response

    async def close(self) -> None:
        """Close all connections."""
        await self._kept.close()
        await self._fresh.close()


def _opened_for_its_query(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    _OPENED.get().append(made)
    return made


def _came_to_nothing(error: Exception) -> bool:
    """Return whether a connection was made, and ended before a byte came back."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    # If an answer had begun, `message` is that beginning instead of a string.
    return not isinstance(error, aiohttp.ServerDisconnectedError) or isinstance(error.message, str)
