"""The client: one event loop in a thread of its own, one task per query, least-outstanding dispatch, no retries."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
from pydantic_core import to_json

from benchmark.metrics import NS_PER_MS
from benchmark.node.interfaces import EngineBroken, Listener, Query, now_ns
from benchmark.node.serving.reply import Reply, ReplyError
from benchmark.node.serving.words import body_words, shown

T = TypeVar("T")

GET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 30.0
# Servers on uvicorn close an idle connection after 5 s. A query sent into that very moment would fail, as nothing is
# sent twice: so the client closes first.
KEEP_ALIVE_S = 4.0
REFUSALS_IN_A_ROW = 3
"""Connections in a row that could not be opened, after which a URL is given no more queries."""
WATCH_S = 0.25

# For questions before the measuring: uvicorn closes a connection after an answer 500 without saying so, and whoever
# comes next on it is cut off.
ALONE = {"Connection": "close"}


class HttpError(ReplyError):
    """The server answered with another status than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


class Unreachable(ReplyError):
    """No connection could be opened."""


@dataclass
class Target:
    """One server, and the queries that it has to answer.

    `refused`: connections in a row that could not be opened; `software`: its header `Server`.
    """

    url: str
    flights: set[_Flight] = field(default_factory=set)
    asked: int = 0
    refused: int = 0
    software: str = ""


@dataclass(frozen=True)
class Request:
    """Where a query goes and what it carries. `input_tokens`: how many ids its prompt has, if it is made of ids."""

    route: str
    body: dict[str, Any]
    input_tokens: int | None = None


class Client:
    """Asks the servers at `urls`. Every failure is told as one: nothing is sent twice, redirected or queued here.

    A URL that refuses connections is left alone after some: failing at once, it would draw all queries.
    """

    def __init__(
        self, urls: Sequence[str], api_key: str | None, timeout_s: float, ended: Callable[[], str | None]
    ) -> None:
        """`ended` says why the servers have ended, None while they run; it is asked four times a second."""
        self.targets = [Target(url) for url in urls]
        self.broken: str | None = None
        """Why nothing can be answered any more."""
        self.tails_ms: list[float] = []
        """Of each answer, from its last output until its stream ended."""
        self.outputs: Counter[str] = Counter()
        """Kind of output -> answers that held any of it."""
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._ended = ended
        self._flights: dict[asyncio.Task[None], _Flight] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._session, self._watcher = self.call(self._open())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop and wait for its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def submit(self, query: Query, listener: Listener, request: Request) -> None:
        """Hand the query over to the loop; raises EngineBroken where nothing is answered any more."""
        if self.broken:
            raise EngineBroken(self.broken)
        self._loop.call_soon_threadsafe(self._take_off, _Flight(query, listener), request)

    def close(self) -> None:
        """Drop the queries in flight and end the thread."""
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def get(self, target: Target, route: str) -> str:
        """Return what a route answers. Raises ReplyError unless its status is 200."""
        limit = aiohttp.ClientTimeout(total=GET_TIMEOUT_S)
        with self._told(target, f"{GET_TIMEOUT_S:g} s"):
            async with self._session.get(
                target.url + route, headers=ALONE, allow_redirects=False, timeout=limit
            ) as response:
                target.software = response.headers.get("Server", "")
                await _refuse_error(response)
                return await response.text(errors="replace")

    async def ask(
        self,
        target: Target,
        request: Request,
        first: Callable[[int], None],
        whole: Callable[[Reply], None],
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """Send one request, read its stream, and return when that ended.

        `first` is called with the time of the first token, `whole` with the reply.

        The reply is whole with its last output; what the stream goes on with delays nobody. Raises ReplyError where
        there is no whole reply, and what `first` and `whole` raise.
        """
        reply, begun = Reply(), False
        with self._told(target, f"{self._timeout_s:g} s (benchmark_endpoint_query_timeout_s)"):
            async with self._session.post(
                target.url + request.route,
                data=to_json(request.body),
                headers={"Content-Type": "application/json", **more_headers},
                allow_redirects=False,
            ) as response:
                await _refuse_error(response)
                while not reply.whole:
                    if received := await response.content.readany():
                        reply.feed(received, now_ns())
                    else:
                        reply.end(now_ns())
                    if not begun and reply.first_ns is not None:
                        begun = True
                        first(reply.first_ns)
                    if not received:
                        break
                whole(reply)
                # A connection that was read to its end serves the next query; the answer is there already.
                with suppress(aiohttp.ClientError, asyncio.TimeoutError):
                    await response.content.read()
                return now_ns()

    async def _open(self) -> tuple[aiohttp.ClientSession, asyncio.Task[None]]:
        # Connections are opened by the queries that need them, and kept. Opened in advance, they would be closed by one
        # side or the other before the warm-up is over.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            headers={
                # A compressed stream would be held back until there is enough to compress.
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}),
            },
        )
        return session, asyncio.ensure_future(self._watch())

    async def _close(self) -> None:
        tasks = [self._watcher, *self._flights]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        await self._loop.shutdown_default_executor()  # it looked up names

    async def _watch(self) -> None:
        while not self.broken:
            if ended := self._ended():
                self._break(ended)
            await asyncio.sleep(WATCH_S)

    def _break(self, reason: str) -> None:
        self.broken = reason
        for task, flight in list(self._flights.items()):
            # Here and not in the task: one that has not begun yet would end without a word.
            flight.fail(reason)
            task.cancel()

    def _take_off(self, flight: _Flight, request: Request) -> None:
        if self.broken:
            flight.fail(self.broken)
            return
        task = self._loop.create_task(self._fly(flight, request))
        self._flights[task] = flight
        task.add_done_callback(self._flights.pop)

    async def _fly(self, flight: _Flight, request: Request) -> None:
        fit = [target for target in self.targets if target.refused < REFUSALS_IN_A_ROW]
        target = min(fit, key=lambda one: (len(one.flights), one.asked))
        target.asked += 1
        target.flights.add(flight)

        replies: list[Reply] = []

        def whole(reply: Reply) -> None:
            replies.append(reply)
            self.outputs.update(reply.kinds)
            # Before the listener hears, and may ask again: what is left of the stream occupies no server.
            target.flights.discard(flight)
            flight.complete(reply, request.input_tokens)

        try:
            ended_ns = await self.ask(target, request, flight.first, whole)
            self.tails_ms += [(ended_ns - reply.last_ns) / NS_PER_MS for reply in replies]
            target.refused = 0
        except Unreachable as error:
            target.refused += 1
            flight.fail(str(error))
            if all(one.refused >= REFUSALS_IN_A_ROW for one in self.targets) and not self.broken:
                self._break(f"No server can be reached any more. {error}")
        except ReplyError as error:
            target.refused = 0
            flight.fail(str(error))
        except Exception as error:  # a query that nobody ends would keep the scenario waiting for ever
            traceback.print_exc()
            flight.fail(f"{type(error).__name__}: {error}")
        finally:
            target.flights.discard(flight)

    @contextmanager
    def _told(self, target: Target, limit: str) -> Iterator[None]:
        """Turn what the connection raises into a ReplyError, a sentence; the key is in none."""
        try:
            yield
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            raise Unreachable(f"{target.url} cannot be reached: {shown(str(cause))}.") from None
        except asyncio.TimeoutError:
            raise ReplyError(f"{target.url} gave no whole answer within {limit}.") from None
        except aiohttp.ClientError as error:
            broke = shown(str(error)) or type(error).__name__
            raise ReplyError(f"The connection to {target.url} broke: {broke}") from None
        except ReplyError as error:
            if self._api_key:
                error.args = (str(error).replace(self._api_key, "***"),)
            raise


class _Flight:
    """One query on its way: its listener hears of its end exactly once."""

    def __init__(self, query: Query, listener: Listener) -> None:
        self._query = query
        self._listener = listener
        self._ended = False
        self._first = False

    def first(self, at_ns: int) -> None:
        self._first = True
        self._listener.first_token(self._query, at_ns)

    def complete(self, reply: Reply, input_tokens: int | None) -> None:
        answer = reply.answer(input_tokens)
        if not self._first and answer.output_tokens:
            self.first(reply.last_ns)
        self._listener.completed(self._query, reply.last_ns, answer)
        self._ended = True

    def fail(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._listener.failed(self._query, reason)


async def _refuse_error(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise HttpError(response.status, body_words(await response.read()) or "the body is empty")
