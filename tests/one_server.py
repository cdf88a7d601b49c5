"""`tests/openai_server.py` as a process: it listens where a system's node has to, and asks for the run's key.

python -m tests.one_server TOKEN_MS FILE: so long takes a token; its pid, and then a line for each query, go to
FILE-ADDRESS. The key is that of `BENCHMARK_SERVE_API_KEY`, or of KEY.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.openai_server import OpenAIServer, whole


def main() -> None:
    """Serve until SIGTERM."""
    token_s, host = float(sys.argv[1]) / 1000, os.environ["BENCHMARK_SERVE_ADDRESS"]
    log = Path(f"{sys.argv[2]}-{host}")
    log.write_text(f"{os.getpid()}\n")

    async def slowly(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        with log.open("a") as file:
            print(request.path, file=file)
        async for part in whole(request, body):
            await asyncio.sleep(token_s)
            yield part

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    key = os.environ.get("KEY") or os.environ["BENCHMARK_SERVE_API_KEY"]
    with OpenAIServer(port=int(os.environ["BENCHMARK_SERVE_PORT"]), host=host, key=key) as server:
        server.answer = slowly
        over.wait()


if __name__ == "__main__":
    main()
