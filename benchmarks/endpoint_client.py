"""Measure the ceiling of the engine `endpoint`'s client: the load above which the client is the bottleneck.

    python -m benchmarks.endpoint_client

A simulated server in another process streams answers with one token per chunk, each with its id: as fast as it can, so
that a read returns many chunks; or with a pause after each token, as a model does, so that a read returns one. The
ceiling follows from the client's processor time per query: it is the rate at which the client would use a whole second
of processor time per second. The measured rate is that of the slower of the two processes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web

from benchmark.node.engines.endpoint import Engine
from benchmark.node.interfaces import Answer, Prompt, Query
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.openai_server import OpenAIServer, whole

PAUSE_S = 0.01
# Whether the server pauses, tokens per answer, answers in flight, number of answers.
CASES = (
    (False, 1, 1, 500),
    (False, 1, 64, 3000),
    (False, 128, 1, 50),
    (False, 128, 128, 800),
    (True, 128, 16, 64),
    (True, 128, 64, 256),
    (True, 128, 256, 512),
)
PROMPT = Prompt(id="p", text="", token_ids=tuple(range(1000)))


class Counter:
    """A listener that counts tokens, and makes room for the next query."""

    def __init__(self, in_flight: int) -> None:
        self.tokens = 0
        self.failed_queries = 0
        self.room = threading.Semaphore(in_flight)

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Nothing to count."""

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        self.tokens += answer.output_tokens
        self.room.release()

    def failed(self, query: Query, error: str) -> None:
        self.failed_queries += 1
        print(error)
        self.room.release()


async def paced(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """Answer like the base class, with a pause after each chunk."""
    async for part in whole(request, body):
        yield part
        await asyncio.sleep(PAUSE_S)


def serve(connection: Connection) -> None:
    """Run the simulated server until the other end of the pipe is closed."""
    with OpenAIServer() as fast, OpenAIServer() as slow:
        slow.answer = paced
        connection.send((fast.url, slow.url))
        connection.poll(None)


def measure(url: str, tokens: int, in_flight: int, queries: int) -> str:
    """Measure one case and return its line of the table."""
    settings = Settings(benchmark_device="cpu", benchmark_endpoint_urls=[url], benchmark_endpoint_model="served")
    engine = Engine(settings, Generation(max_new_tokens=tokens, min_new_tokens=tokens), {})
    engine.load()
    counter = Counter(in_flight)
    began, cpu = time.monotonic(), time.process_time()
    for index in range(queries):
        counter.room.acquire()
        engine.submit(Query(index=index, prompt=PROMPT, seed=index), counter)
    for _ in range(in_flight):
        counter.room.acquire()
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    engine.close()
    if counter.failed_queries or counter.tokens != tokens * queries:
        raise SystemExit(f"{counter.failed_queries} queries failed, and {counter.tokens} tokens were counted")
    return (
        f"| {tokens} | {in_flight} | {queries / took:,.0f} | {counter.tokens / took:,.0f} | {cpu / queries * 1e6:,.0f} "
        f"| {queries / cpu:,.0f} | {counter.tokens / cpu:,.0f} |"
    )


def main() -> None:
    """Print the table."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    fast, slow = ours.recv()
    print("| server | tokens | in flight | queries/s | tokens/s | client, us a query | ceiling: queries/s | tokens/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for pauses, *case in CASES:
        print(f"| {'pauses' if pauses else 'fast'} {measure(slow if pauses else fast, *case)}", flush=True)
    ours.close()
    process.join(10)


if __name__ == "__main__":
    main()
