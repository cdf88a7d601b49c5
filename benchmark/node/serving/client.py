"""The client: one event loop in a thread of its own, one task per query, least-outstanding dispatch."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from pydantic_core import to_json

from benchmark.errors import SetupError
from benchmark.metrics import NS_PER_MS, distribution
from benchmark.node.interfaces import EngineBroken, Listener, Query, now_ns
from benchmark.node.serving.connections import Address, Connections, base_of, tls_context
from benchmark.node.serving.failures import (
    ClientShortage,
    HttpError,
    NotConnected,
    TlsFailure,
    Unreachable,
    explained,
    speaks_tls,
)
from benchmark.node.serving.proxies import proxy_for
from benchmark.node.serving.reply import Reply, ReplyError
from benchmark.node.serving.slots import Slots, most_connections, most_to_one_server
from benchmark.node.serving.words import body_words
from benchmark.secret_settings import Secrets

__all__ = ["ALONE", "Client", "HttpError", "Request", "Target", "Unreachable"]

T = TypeVar("T")

GET_TIMEOUT_S = 10.0
REFUSALS_IN_A_ROW = 3
"""Failed attempts in a row to open a connection, after which a URL gets no more queries."""
WATCH_S = 0.25

# For requests before the measurement, each on its own connection: some servers (uvicorn, after a status 500) close a
# connection without notice, and the next request on it fails.
ALONE = True


@dataclass
class Target:
    """One server, and its queries in flight.

    `refused`: failed attempts in a row to open a connection; `reached`: whether it has ever answered; `open`:
    connections in use by queries, also while the rest of a stream is read; `software`: its header `Server`.
    """

    address: Address
    flights: set[_Flight] = field(default_factory=set)
    asked: int = 0
    refused: int = 0
    reached: bool = False
    open: int = 0
    software: str = ""

    @property
    def url(self) -> str:
        """The URL for display: without the query string."""
        return self.address.url

    @property
    def load(self) -> tuple[int, int]:
        """The sort key: the next query goes to the server with the least load."""
        return len(self.flights), self.asked


@dataclass(frozen=True)
class Request:
    """Where a query goes and what it carries. `input_tokens`: how many ids its prompt has, if it is made of ids."""

    route: str
    body: dict[str, Any]
    input_tokens: int | None = None


class Client:
    """Sends queries to the servers at `urls`. Every failure is reported in a sentence; redirects are not followed.

    A query waits here only while this process has as many connections open as it may; see `Slots`. What is sent more
    than once: see `Connections`. A URL that keeps refusing connections gets no more queries: as its queries fail at
    once, it would always have the least load and attract all others.
    """

    def __init__(
        self,
        urls: Sequence[str],
        secrets: Secrets | None,
        timeout_s: float,
        ended: Callable[[], str | None],
        ca_file: str = "",
    ) -> None:
        """`ended` returns why the servers have ended, None while they run; it is called four times a second.

        Raises SetupError for an unusable CA file or if this node has no thread or file handle left, InputError for an
        unusable proxy.
        """
        self.targets = [Target(_address(url)) for url in urls]
        self.broken: str | None = None
        """Why nothing can be answered any more."""
        self._tails_ms: list[float] = []
        self._outputs: Counter[str] = Counter()
        self._secrets = secrets or Secrets()
        self._timeout_s = timeout_s
        self._ended = ended
        self._flights: dict[asyncio.Task[None], _Flight] = {}
        self._given: dict[int, int] = {}
        encrypted = any(target.url.startswith("https://") for target in self.targets)
        context = tls_context(ca_file) if encrypted or ca_file else True
        try:
            handles, ports = most_connections(), most_to_one_server()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
            self._thread.start()
        except (OSError, RuntimeError) as error:
            if (short := explained(error, "", "")) is None:
                raise
            raise SetupError(str(short)) from None
        self._slots = Slots(handles, self._fit, ports)
        limits = [limit for limit in (handles, ports and ports * len(self.targets)) if limit is not None]
        self._most = min(limits, default=None)
        self._connections, self._watcher = self.call(self._open(context))

    def begin_window(self) -> None:
        """Reset the counts."""
        self._slots.waited = self._connections.resent = 0
        self._tails_ms, self._outputs = [], Counter()

    def end_window(self) -> dict[str, Any]:
        """Return the counts since then, as fields of `Serving`."""
        return {
            "resent": self._connections.resent,
            "waited": self._slots.waited,
            "max_connections": self._most,
            "outputs": dict(self._outputs),
            "tail_ms": distribution(list(self._tails_ms)),
        }

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def submit(self, query: Query, listener: Listener, request: Request) -> None:
        """Hand the query over to the loop; raises EngineBroken if no server can answer any more."""
        if self.broken:
            raise EngineBroken(self.broken)
        self._loop.call_soon_threadsafe(self._take_off, _Flight(query, listener), request)

    def server_of(self, query: Query) -> int | None:
        """Return the index of the server that got the query, once; None: none did, or there is only one server."""
        return self._given.pop(query.index, None)

    def close(self) -> None:
        """Drop the queries in flight and end the thread."""
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def get(self, target: Target, route: str) -> str:
        """Return the body of a route's answer. Raises ReplyError unless its status is 200."""
        try:
            with self._reported(target, f"{GET_TIMEOUT_S:g} s"):
                async with self._connections.get(target.address, route, GET_TIMEOUT_S) as response:
                    target.reached = True
                    target.software = self._secrets.mask_key(response.headers.get("Server", ""))
                    await _refuse_error(response)
                    return self._secrets.mask_key((await response.text(errors="replace")).lstrip("\ufeff"))
        except (HttpError, ClientShortage, NotConnected):
            raise
        except ReplyError:
            if target.url.startswith("http://") and not target.address.proxy and await speaks_tls(target.url):
                raise TlsFailure(f"{target.url} accepts only TLS: write https:// in benchmark_endpoint_urls.") from None
            raise

    async def ask(
        self,
        target: Target,
        request: Request,
        first: Callable[[int, int | None], None],
        whole: Callable[[Reply], None],
        alone: bool = False,
    ) -> int:
        """Send one request, read its stream, and return the time at which the stream ended.

        `first` is called with the time of the first token and its id, if known. `whole` is called with the reply as
        soon as it is complete; the rest of the stream is read after that. `alone`: on a connection of its own. What is
        sent more than once: see `Connections.post`. Raises ReplyError if there is no complete reply, and whatever
        `first` and `whole` raise.
        """
        reply, begun = Reply(), False
        with self._reported(target, f"{self._timeout_s:g} s (benchmark_endpoint_query_timeout_s)"):
            sent = self._connections.post(target.address, request.route, to_json(request.body), alone)
            async with sent as response:
                target.reached = True
                await _refuse_error(response)
                while not reply.whole:
                    if received := await response.content.readany():
                        reply.feed(received, now_ns())
                    else:
                        reply.end(now_ns())
                    if not begun and reply.first_ns is not None:
                        begun = True
                        first(reply.first_ns, reply.first_id)
                    if not received:
                        break
                whole(reply)
                # The answer is complete; reading to the end makes the connection reusable for the next query.
                with suppress(aiohttp.ClientError, asyncio.TimeoutError):
                    await response.content.read()
                return now_ns()

    async def _open(self, context: ssl.SSLContext | bool) -> tuple[Connections, asyncio.Task[None]]:
        return Connections(self._secrets, context, self._timeout_s), asyncio.ensure_future(self._watch())

    async def _close(self) -> None:
        tasks = [self._watcher, *self._flights]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connections.close()
        await self._loop.shutdown_default_executor()  # used for DNS lookups

    async def _watch(self) -> None:
        while not self.broken:
            if ended := self._ended():
                self._break(ended)
            await asyncio.sleep(WATCH_S)

    def _break(self, reason: str) -> None:
        self.broken = reason
        for task, flight in list(self._flights.items()):
            # Here and not in the task: a task that has not started yet would be cancelled without a report.
            flight.fail(reason)
            task.cancel()

    def _take_off(self, flight: _Flight, request: Request) -> None:
        if self.broken:
            flight.fail(self.broken)
            return
        task = self._loop.create_task(self._fly(flight, request))
        self._flights[task] = flight
        task.add_done_callback(self._flights.pop)

    def _fit(self) -> list[Target]:
        return [target for target in self.targets if target.refused < REFUSALS_IN_A_ROW]

    async def _fly(self, flight: _Flight, request: Request) -> None:
        def given(target: Target) -> None:
            target.asked += 1
            target.flights.add(flight)
            if len(self.targets) > 1:
                self._given[flight.index] = self.targets.index(target)

        target = await self._slots.take(given)
        replies: list[Reply] = []

        def whole(reply: Reply) -> None:
            replies.append(reply)
            self._outputs.update(reply.kinds)
            # Before the listener is called, as it may submit again: the rest of the stream is no load on the server.
            target.flights.discard(flight)
            flight.complete(reply, request.input_tokens)

        try:
            ended_ns = await self.ask(target, request, flight.first, whole)
            self._tails_ms += [(ended_ns - reply.last_ns) / NS_PER_MS for reply in replies]
            target.refused = 0
        except NotConnected as error:
            target.refused += 1
            broken = self.broken
            if not self._fit() and not broken:
                # Before the listener is called, as it may submit again.
                self.broken = f"No server can be reached any more. {error}"
            flight.fail(str(error))
            if self.broken and not broken:
                self._break(self.broken)
        except ClientShortage as error:
            flight.fail(str(error))
        except ReplyError as error:
            target.refused = 0
            flight.fail(str(error))
        except Exception as error:  # a query that never ends would keep the scenario waiting for ever
            traceback.print_exc()
            flight.fail(self._secrets.mask(f"{type(error).__name__}: {error}"))
        finally:
            target.flights.discard(flight)
            self._slots.release(target)

    @contextmanager
    def _reported(self, target: Target, limit: str) -> Iterator[None]:
        """Turn errors of the connection into a ReplyError whose sentence has no secrets."""
        try:
            yield
        except ReplyError as error:
            error.args = (self._secrets.mask(str(error)),)
            raise
        except Exception as error:
            reported = explained(error, target.url, limit, target.address.through, target.reached)
            if reported is None:
                raise
            reported.args = (self._secrets.mask(str(reported)),)
            raise reported from None


class _Flight:
    """One query in flight: its listener is called exactly once when it ends."""

    def __init__(self, query: Query, listener: Listener) -> None:
        self._query = query
        self._listener = listener
        self._ended = False
        self._first = False

    @property
    def index(self) -> int:
        return self._query.index

    def first(self, at_ns: int, token_id: int | None) -> None:
        self._first = True
        self._listener.first_token(self._query, at_ns, token_id)

    def complete(self, reply: Reply, input_tokens: int | None) -> None:
        answer = reply.answer(input_tokens)
        if not self._first and answer.output_tokens:
            self.first(reply.last_ns, reply.first_id)
        self._listener.completed(self._query, reply.last_ns, answer)
        self._ended = True

    def fail(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._listener.failed(self._query, reason)


def _address(url: str) -> Address:
    base, query = base_of(url)
    return Address(base, query, proxy_for(base, os.environ))


async def _refuse_error(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        try:
            body = await response.read()
        except aiohttp.ClientError:
            # Only the status is known: a failing server may break off after it.
            raise HttpError(response.status, "the connection broke before the body arrived") from None
        raise HttpError(response.status, body_words(body) or "the body is empty")
