"""An OpenAI-compatible server on loopback that answers as it is told to: for faults that no real server makes to order.

What a server does in earnest is tested against `transformers serve` (tests/unit/node/endpoint/test_real.py).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

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

    def __init__(
        self,
        models: tuple[str, ...] = ("served",),
        port: int = 0,
        version: str = "1.2.3",
        host: str = "127.0.0.1",
        key: str = "",
    ) -> None:
        """`port` 0: one that is free; `key`: what /v1/ asks for, as vLLM does."""
        self.host, self.key = host, key
        self.models = models
        self.entries: list[dict[str, Any]] | None = None
        """The list of models as it is sent, in the place of `models`."""
        self.unknown_models: set[str] = set()
        """Models that are answered with 404, as vLLM does."""
        self.takes: Callable[[dict[str, Any]], str | None] = lambda body: None
        """What a request is refused with, 400; None: it is taken."""
        self.pages: dict[str, Any] = {}
        """Further routes of the server: text, or what is sent as JSON."""
        self.counters: Counters | None = None
        """What /metrics says; None: there is no such route."""
        self.asked: list[str] = []
        """The routes that were read, in order."""
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
        application = web.Application(middlewares=[self._ask_for_key])
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/models", self._list)
        application.router.add_get("/version", self._version)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/{page:(?!v1/).+}", self._page)
        application.router.add_post("/v1/completions", self._answer)
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _ask_for_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wrong = self.key and request.headers.get("Authorization") != f"Bearer {self.key}"
        if wrong and request.path.startswith("/v1/"):
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    async def _list(self, request: web.Request) -> web.Response:
        entries = [{"id": model} for model in self.models] if self.entries is None else self.entries
        return web.json_response({"object": "list", "data": entries})

    async def _metrics(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.counters is None:
            raise web.HTTPNotFound
        return web.Response(text=self.counters.text())

    async def _page(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        page = self.pages.get(request.path)
        if page is None:
            raise web.HTTPNotFound
        return web.Response(text=page) if isinstance(page, str) else web.json_response(page)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append({**body, "route": request.path, "key": request.headers.get("Authorization")})
        if unknown := self.rejects & set(body):
            return web.json_response({"error": {"message": f"Unknown fields: {sorted(unknown)}"}}, status=400)
        if body.get("model") in self.unknown_models:
            return web.json_response({"message": f"The model `{body['model']}` does not exist."}, status=404)
        if said := self.takes(body):
            return web.json_response({"error": {"message": said}}, status=400)
        if self.counters is not None:
            self.counters.take(prompt_of(body))
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


class Counters:
    """What vLLM counts of its prefix cache, in blocks of 16 tokens; `caching`: whether it has one."""

    BLOCK = 16

    def __init__(self, caching: bool = True) -> None:
        self.caching = caching
        self.hits = self.queries = self.prompts = 0
        self._known: set[tuple[Any, ...]] = set()

    def take(self, prompt: list[Any]) -> None:
        """Count a prompt. At least its last token is always computed."""
        self.prompts += len(prompt)
        if not self.caching:
            return
        self.queries += len(prompt)
        ends = range(self.BLOCK, len(prompt) + 1, self.BLOCK)
        self.hits += max((end for end in ends if end < len(prompt) and tuple(prompt[:end]) in self._known), default=0)
        self._known |= {tuple(prompt[:end]) for end in ends}

    def text(self) -> str:
        """Return them in Prometheus' text format, as vLLM writes them."""
        lines = []
        named = {"prefix_cache_queries": self.queries, "prefix_cache_hits": self.hits, "prompt_tokens": self.prompts}
        for name, value in named.items():
            lines += [f"# HELP vllm:{name}_total Tokens.", f"# TYPE vllm:{name}_total counter"]
            lines.append(f'vllm:{name}_total{{engine="0",model_name="a model"}} {float(value)}')
        return "\n".join(lines) + "\n"


def prompt_of(body: dict[str, Any]) -> list[Any]:
    """Return the prompt's tokens: ids, or those of a chat template and the words of the messages."""
    if isinstance(body.get("prompt"), list):
        return list(body["prompt"])
    return ["<chat>"] * 7 + " ".join(str(message.get("content")) for message in body.get("messages", ())).split()


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
    count = body.get("max_tokens") or body["max_completion_tokens"]
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
