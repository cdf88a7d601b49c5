"""`tests/openai_server.py` as a process: it listens where a system's node is told to, and asks for the run's key.

python -m tests.one_server [TOKEN_MS]: so long takes a token; the key is `BENCHMARK_SERVE_API_KEY`, or what KEY says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.openai_server import OpenAIServer, whole


def main() -> None:
    """Serve until SIGTERM."""
    token_s = float(sys.argv[1]) / 1000 if sys.argv[1:] else 0.0

    async def slowly(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async for part in whole(request, body):
            await asyncio.sleep(token_s)
            yield part

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    key = os.environ.get("KEY") or os.environ["BENCHMARK_SERVE_API_KEY"]
    host, port = os.environ["BENCHMARK_SERVE_ADDRESS"], int(os.environ["BENCHMARK_SERVE_PORT"])
    with OpenAIServer(port=port, host=host, key=key) as server:
        server.answer = slowly
        over.wait()


if __name__ == "__main__":
    main()
