"""The connections to servers: kept between queries, or fresh for each question, and what goes out on them."""

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
# Servers on uvicorn close an idle connection after 5 s: the client closes first, where it can.
KEEP_ALIVE_S = 4.0
# Of a query's own task: the sockets that were made for it. Where there are none, its connection was used before. (The
# library's own trace tells that too, and takes a tenth of the time of a short query.)
_OPENED: ContextVar[list[socket.socket]] = ContextVar("opened")


@dataclass(frozen=True)
class Address:
    """Where a server is: `url` without its query string, which goes onto every route."""

    url: str
    query: str = field(default="", repr=False)
    proxy: Proxy | None = None

    def at(self, route: str) -> str:
        """Return the URL of a route."""
        return f"{self.url}{route}?{self.query}" if self.query else self.url + route

    @property
    def proxy_url(self) -> str | None:
        """The proxy's, with user and password; None: there is none."""
        return self.proxy.url if self.proxy else None

    @property
    def through(self) -> str:
        """The variable that named the proxy; empty: there is none."""
        return self.proxy.variable if self.proxy else ""


def base_of(url: str) -> tuple[str, str]:
    """Return a setting's URL as the base of routes, without /v1 and a closing slash, and its query string."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}", parts.query


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return what certificates are checked with: the system's authorities, and those of a file in PEM form.

    Raises SetupError where the file cannot be read or holds no certificate.
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
    """Two sets of connections: for queries, which are kept and used again; and fresh ones, closed after one answer.

    Made on the event loop. Connections for queries are opened by the queries that need them: opened in advance, they
    would be closed by one side or the other before the warm-up is over.
    """

    def __init__(self, secrets: Secrets, context: ssl.SSLContext | bool, timeout_s: float) -> None:
        self.resent = 0
        """Queries that were sent once more on a fresh connection."""
        shared: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            "headers": {
                # A compressed stream would be held back until there is enough to compress.
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {secrets.api_key}"} if secrets.api_key else {}),
                **secrets.headers,
            },
        }
        kept = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context, socket_factory=_opened_for_its_query
        )
        self._kept = aiohttp.ClientSession(connector=kept, **shared)
        # A header "Connection: close" would not do: the client library reuses such a connection where the server has
        # not closed it yet.
        closing = aiohttp.TCPConnector(limit=0, force_close=True, ssl=context)
        self._fresh = aiohttp.ClientSession(connector=closing, **shared)

    @asynccontextmanager
    async def get(self, address: Address, route: str, timeout_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask a route on a fresh connection; the library asks once more, on another, where no byte comes back."""
        limit = aiohttp.ClientTimeout(total=timeout_s)
        async with self._fresh.get(
            address.at(route), timeout=limit, allow_redirects=False, proxy=address.proxy_url
        ) as response:
            yield response

    @asynccontextmanager
    async def post(
        self, address: Address, route: str, body: bytes, alone: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a query, on a connection that is kept or, `alone`, on a fresh one, and yield what answers it.

        A server may close a connection in the very moment in which it is used again. So what was sent on a used one,
        and got no byte back, is sent once more on a fresh one. What was sent on a fresh one is sent again `alone` only.
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
    """Return whether a connection was there, and ended before a byte came."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    # In the place of a text it has the beginning of an answer.
    return not isinstance(error, aiohttp.ServerDisconnectedError) or isinstance(error.message, str)
