"""A server on loopback that speaks HTTP by hand: for what aiohttp's own server is too polite to do."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.openai_server import DONE, event


@dataclass
class Asked:
    """One request, and the connection on which it came."""

    connection: int
    """How many connections had been opened before."""
    number: int
    """How many requests had come on it before."""
    head: str
    body: bytes
    writer: asyncio.StreamWriter = field(repr=False)

    @property
    def route(self) -> str:
        return self.head.split(" ")[1]

    @property
    def headers(self) -> dict[str, str]:
        lines = (line.partition(":") for line in self.head.split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in lines if name}

    def send(self, body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> None:
        """Answer with a whole body."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.writer.write(head.encode() + body)

    def reset(self) -> None:
        """End the connection with a reset."""
        self.writer.transport.abort()


Handler = Callable[[Asked], Awaitable[object]]


class RawServer:
    """In a thread of its own; `handle` answers each request, and the connection goes on until it is closed."""

    def __init__(
        self, handle: Handler, idle_s: float | None = None, context: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        """`idle_s`: after which a connection that waits for a request is closed."""
        self.handle = handle
        self.idle_s = idle_s
        self.asked: list[Asked] = []
        self.opened = 0
        self.port = port
        self._context = context
        self._open: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="raw-server")

    def __enter__(self) -> RawServer:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and every connection; may be called twice."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1000, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        connection, number = self.opened, 0
        self.opened += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            while not writer.is_closing():
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self.idle_s)).decode()
                length = next(
                    (line[15:] for line in head.split("\r\n") if line.lower().startswith("content-length")), "0"
                )
                body = await reader.readexactly(int(length))
                asked = Asked(connection, number, head, body, writer)
                self.asked.append(asked)
                await self.handle(asked)
                await writer.drain()
                number += 1
        writer.close()
        self._open.discard(task)


def models(*names: str) -> bytes:
    """Return the body of /v1/models."""
    return json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


def stream(tokens: int = 2) -> bytes:
    """Return a whole answer of the chat route, as its body."""
    chunks = [event({"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [n]}]}) for n in range(tokens)]
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
    return b"".join([*chunks, last, usage, DONE])


async def polite(asked: Asked) -> None:
    """Answer as a server does."""
    if "/models" in asked.route:
        asked.send(models("served"))
    elif asked.head.startswith("GET"):
        asked.send(b"{}")
    else:
        asked.send(stream(), kind="text/event-stream")
