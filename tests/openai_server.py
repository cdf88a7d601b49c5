"""An OpenAI-compatible server on loopback that answers as it is told to: for faults that no real server makes to order.

What a server does in earnest is tested against `transformers serve` (test_endpoint_real.py).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request, dict[str, Any]], AsyncIterator[bytes]]


class Refusal(Exception):
    """Answer with this status and body instead of a stream."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Cut(Exception):
    """Close the connection here, in the middle."""


class OpenAIServer:
    """In a thread of its own; use it as a context manager. Without further ado it answers with max_tokens token ids."""

    def __init__(self, models: tuple[str, ...] = ("served",), port: int = 0, version: str = "1.2.3") -> None:
        """`port` 0: one that is free."""
        self.models = models
        self.version = version
        self.rejects: set[str] = set()
        """Fields that are answered with 400."""
        self.answer: Answer = whole
        self.seen: list[dict[str, Any]] = []
        """The bodies of the requests that were to be answered, with `route` and `key`."""
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-server")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and every connection; may be called twice."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _open(self) -> None:
        application = web.Application()
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/models", self._list)
        application.router.add_get("/version", self._version)
        application.router.add_post("/v1/completions", self._answer)
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model} for model in self.models]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append({**body, "route": request.path, "key": request.headers.get("Authorization")})
        if unknown := self.rejects & set(body):
            return web.json_response({"error": {"message": f"Unknown fields: {sorted(unknown)}"}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            async for part in self.answer(request, body):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(part)
        except Refusal as refusal:
            return web.Response(status=refusal.status, text=refusal.text)
        except Cut:
            if request.transport is not None:
                request.transport.abort()
        return response


def event(content: Any) -> bytes:
    """Return one event: text as it is, anything else as JSON."""
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()


DONE = event("[DONE]")


def token(request: web.Request, text: str, **more: Any) -> bytes:
    """Return a chunk in the form of the route that was asked."""
    if "chat" in request.path:
        return event({"choices": [{"index": 0, "delta": {"content": text}, **more}]})
    return event({"choices": [{"index": 0, "text": text, **more}]})


def finish(request: web.Request, reason: str = "length") -> bytes:
    """Return the chunk without text that says why the answer ends."""
    return token(request, "", finish_reason=reason)


def usage(output_tokens: int, input_tokens: int = 7) -> bytes:
    """Return the chunk that vLLM sends last."""
    return event({"choices": [], "usage": {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}})


def token_ids(body: dict[str, Any], count: int) -> list[int]:
    """Return the ids that `whole` sends: they depend on the seed alone."""
    return [(body["seed"] + position) % 1000 for position in range(count)]


async def whole(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """Send max_tokens tokens, one a chunk, with ids where they are asked for; then usage and [DONE]."""
    count = body["max_tokens"]
    if "chat" in request.path:
        yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    for number in token_ids({"seed": 0, **body}, count):
        ids = {"token_ids": [number]} if body.get("return_token_ids") else {}
        yield token(request, f"{number} ", **ids)
    yield finish(request)
    if body.get("stream_options", {}).get("include_usage"):
        yield usage(count)
    yield DONE


def parts(*content: bytes | Callable[[web.Request], bytes] | BaseException) -> Answer:
    """Return an answer of just these parts; an exception in their place is raised."""

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        for part in content:
            if isinstance(part, BaseException):
                raise part
            yield part if isinstance(part, bytes) else part(request)

    return answer
