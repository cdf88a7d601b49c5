"""An HTTP server for an engine that has none of its own: the OpenAI routes that the engine `endpoint` uses.

An engine reports the first token and the end, and so does the stream: its first piece is one token, its last piece all
others. TTFT and TPOT depend only on the times of these two, so no work is done for the tokens between them, and the
engine loses no time to it.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web

from benchmark import __version__
from benchmark.node.interfaces import Answer, Engine, EngineBroken, Query
from benchmark.node.serving.incoming import Asked, Refused, read
from benchmark.node.serving.request import ROUTES, Api
from benchmark.node.serving.slots import raise_handle_limit
from benchmark.profiles import Generation

# Connections that may wait to be accepted; the kernel's limit (net.core.somaxconn) applies if it is lower.
BACKLOG = 65535
MOST_BYTES = 64 * 2**20
"""Limit of a request's body: room for hundreds of thousands of token ids."""
# Keeps a driver's connection open while it is idle between two measurements.
KEEP_ALIVE_S = 3600.0
# Time for requests in flight to end when the server is closed (0 means no limit), and then for the thread.
END_S, CLOSE_S = 0.1, 2.0
# Anyone can send to a port, and aiohttp would write that to the run's log, headers and keys included.
_UNHEARD = logging.Logger("unheard")
_UNHEARD.addHandler(logging.NullHandler())
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EngineServer:
    """Answers on a listening socket, in its own thread; every route requires the key.

    A query is cancelled if its client disconnects. Once the engine is broken, connections are refused, so that a client
    of several servers stops using this one.
    """

    def __init__(self, engine: Engine, name: str, model: str, generation: Generation, key: str) -> None:
        """`name`: the engine's; `model`: its name in requests; `key`: required of clients unless it is empty."""
        self.broken: str | None = None
        """Why nothing can be answered any more."""
        self._engine, self._model, self._generation, self._key = engine, model, generation, key
        self._name = f"llm-datacenter-benchmark/{__version__} ({name})"
        self._numbers = itertools.count()
        # One thread, as an engine may answer within `submit`, and a query must be submitted before it is cancelled.
        self._asking = ThreadPoolExecutor(1, "asking")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        application = web.Application(client_max_size=MOST_BYTES, middlewares=[self._guard])
        application.on_response_prepare.append(self._sign)
        application.router.add_get("/health", self._health)
        application.router.add_get("/version", self._version)
        application.router.add_get("/v1/models", self._models)
        for api, route in ROUTES.items():
            application.router.add_post(route, partial(self._answer, api))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_UNHEARD,
            handle_signals=False,
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=END_S,
        )

    def start(self, listening: socket.socket) -> None:
        """Start answering on that socket."""
        raise_handle_limit()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(listening), self._loop).result()

    def check(self) -> None:
        """Raise EngineBroken if nothing can be answered any more."""
        if self.broken:
            raise EngineBroken(self.broken)
        self._engine.check()

    def close(self) -> None:
        """Cancel the queries in flight, close all connections and end the thread."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        self._loop.close()
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def _open(self, listening: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, listening, backlog=BACKLOG).start()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer only clients with the key; report every error in OpenAI's form."""
        try:
            if self._key and not hmac.compare_digest(_bearer(request), self._key.encode()):
                raise Refused(401, "The key is not this run's key (benchmark_endpoint_api_key).")
            return await handler(request)
        except Refused as error:
            return _refusal(error.status, str(error))
        except web.HTTPException as error:
            return _refusal(error.status, f"{request.method} {request.path}: {error.reason}.")
        except web.RequestPayloadError:
            return _refusal(400, "The body of the request cannot be read: it does not match its headers.")
        except ConnectionError:
            raise  # the client has disconnected
        except Exception:
            traceback.print_exc()
            raise

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.SERVER] = self._name

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": __version__})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self._model, "object": "model"}]})

    async def _answer(self, api: Api, request: web.Request) -> web.StreamResponse:
        asked = read(api, await request.read(), next(self._numbers), self._model, self._generation)
        flight = _Flight(self._loop)
        try:
            await self._loop.run_in_executor(self._asking, self._submit, asked.query, flight)
            stream = _Stream(api, self._model, asked)
            if isinstance(reported := await flight.next(), str):
                raise Refused(503 if self.broken else 500, reported)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            if isinstance(reported, int):
                await response.write(stream.first(reported))
                reported = await flight.next()
            await response.write(stream.rest(reported) if isinstance(reported, Answer) else stream.error(str(reported)))
            await response.write_eof()
        finally:
            if not flight.ended:
                self._asking.submit(self._engine.cancel, asked.query)
        return response

    def _submit(self, query: Query, flight: _Flight) -> None:
        try:
            self._engine.submit(query, flight)
        except EngineBroken as error:
            self._break(str(error))
            flight.failed(query, str(error))
        except Exception as error:  # as in the recorder: whatever an engine raises is a failed query
            flight.failed(query, f"{type(error).__name__}: {error}")

    def _break(self, reason: str) -> None:
        if not self.broken:
            self.broken = reason
            asyncio.run_coroutine_threadsafe(self._refuse_all(), self._loop)

    async def _refuse_all(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()


class _Flight:
    """The reports of an engine on one query, for the handler that waits: a token, then an answer or an error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self._loop = loop
        self._reported: asyncio.Queue[int | Answer | str] = asyncio.Queue()

    async def next(self) -> int | Answer | str:
        """Return the next report: the first token's id, the whole answer, or why there is none."""
        return await self._reported.get()

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Report the first output token."""
        if token_id is not None:
            self._report(token_id)

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """Report the complete answer."""
        self._end(answer)

    def failed(self, query: Query, error: str) -> None:
        """Report that there is no answer."""
        self._end(error or "no reason was given.")

    def _end(self, reported: Answer | str) -> None:
        if not self.ended:
            self.ended = True
            self._report(reported)

    def _report(self, reported: int | Answer | str) -> None:
        with suppress(RuntimeError):  # the server was closed: no handler waits
            self._loop.call_soon_threadsafe(self._reported.put_nowait, reported)


class _Stream:
    """The events of one answer."""

    def __init__(self, api: Api, model: str, asked: Asked) -> None:
        self._chat, self._asked, self._sent = api == "chat", asked, 0
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{asked.query.index}",
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def first(self, token_id: int) -> bytes:
        """Return the event of the first token."""
        self._sent = 1
        return self._chunk([token_id], None)

    def rest(self, answer: Answer) -> bytes:
        """Return the events after the first token: the other tokens, the finish reason and the usage."""
        token_ids = answer.token_ids[: self._asked.most]
        finish = "length" if len(token_ids) == self._asked.most else "stop"
        events = self._chunk(list(token_ids[self._sent :]), finish)
        if self._asked.usage:
            usage: dict[str, Any] = {"prompt_tokens": answer.input_tokens, "completion_tokens": len(token_ids)}
            usage["total_tokens"] = sum(usage.values())
            if answer.cached_tokens is not None:
                usage["prompt_tokens_details"] = {"cached_tokens": answer.cached_tokens}
            events += _event({**self._head, "choices": [], "usage": usage})
        return events + b"data: [DONE]\n\n"

    def error(self, why: str) -> bytes:
        """Return the event that reports that the answer breaks off, and why."""
        return _event(_error(500, why))

    def _chunk(self, token_ids: list[int], finish: str | None) -> bytes:
        text: dict[str, Any] = {"delta": {"content": ""}} if self._chat else {"text": ""}
        choice = {"index": 0, **text, "token_ids": token_ids, "finish_reason": finish}
        return _event({**self._head, "choices": [choice]})


def _bearer(request: web.Request) -> bytes:
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return key.strip().encode(errors="replace") if scheme.lower() == "bearer" else b""


def _refusal(status: int, why: str) -> web.Response:
    response = web.json_response(_error(status, why), status=status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.force_close()
    return response


def _error(status: int, why: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": why, "type": kind, "code": status}}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
