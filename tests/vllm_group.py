"""What `vllm serve` is over several nodes, for tests of who starts it and ends it: `bin/vllm` of an environment.

The head waits at the master's port until all others have come, and serves; the others compute for it, which here is
nothing. As with vLLM itself, the head ends with an error some time after one of the others is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.openai_server import Counters, OpenAIServer, whole

CHECKOUT = Path(__file__).resolve().parents[1]
# The variable that says how long a token takes.
TOKEN_MS = "GROUP_TOKEN_MS"
# With this variable the parts of the others end with an error once the head is told to end, which takes it so long.
LINGERS_S = "GROUP_HEAD_LINGERS_S"
# From the end of a connection to that of the head; of the real one, seconds.
UNTIL_THE_HEAD_ENDS_S = 2.0


def main() -> None:
    """Serve, or compute for who serves, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument("serve")
    parser.add_argument("model")
    for name in ("host", "served-model-name", "dtype", "load-format", "generation-config", "master-addr"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--distributed-executor-backend", choices=["mp"])
    for name in ("port", "max-model-len", "tensor-parallel-size", "pipeline-parallel-size", "max-num-seqs"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("nnodes", "node-rank", "master-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--gpu-memory-utilization", type=float)
    for name in ("enable-prefix-caching", "enable-log-requests", "disable-uvicorn-access-log"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    parser.add_argument("--headless", action="store_true")
    words = parser.parse_args()
    assert words.tensor_parallel_size * words.pipeline_parallel_size == words.nnodes
    print("serving", words, os.environ["VLLM_HOST_IP"], os.environ["GLOO_SOCKET_IFNAME"], flush=True)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    meet = (words.master_addr, words.master_port)
    if words.headless:
        with _connected(meet) as head:
            if LINGERS_S in os.environ and not head.recv(1):
                sys.exit("The head is gone.")
            over.wait()
        return
    family = socket.AF_INET6 if ":" in words.master_addr else socket.AF_INET
    with socket.create_server(meet, family=family) as listener:
        others = [listener.accept()[0] for _ in range(words.nnodes - 1)]
    for other in others:
        threading.Thread(target=_watch, args=(other,), daemon=True).start()
    with OpenAIServer((words.served_model_name,), words.port, "0.33.0", words.host) as server:
        server.counters = Counters(words.enable_prefix_caching is not False)
        server.answer = _slowly
        over.wait()
        if LINGERS_S in os.environ:
            for other in others:
                other.shutdown(socket.SHUT_RDWR)
            time.sleep(float(os.environ[LINGERS_S]))


async def _slowly(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
    async for part in whole(request, body):
        await asyncio.sleep(float(os.environ.get(TOKEN_MS, "0")) / 1000)
        yield part


def _connected(address: tuple[str, int]) -> socket.socket:
    while True:
        try:
            return socket.create_connection(address)
        except OSError:
            time.sleep(0.05)


def _watch(other: socket.socket) -> None:
    other.recv(1)
    time.sleep(UNTIL_THE_HEAD_ENDS_S)
    print("ERROR [core.py:1] EngineCore encountered a fatal error.", flush=True)
    os._exit(1)


def make(directory: Path, version: str = "0.33.0") -> Path:
    """Make an environment that exists already, with this in the place of vLLM; return its directory."""
    (directory / "bin").mkdir(parents=True)
    metadata = directory / "lib" / f"vllm-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    python = f'PYTHONPATH={directory}/lib exec {sys.executable} "$@"'
    vllm = f'cd {CHECKOUT}; exec {sys.executable} -m tests.vllm_group "$@"'
    for name, line in {"python3": python, "vllm": vllm}.items():
        (directory / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (directory / "bin" / name).chmod(0o755)
    return directory


if __name__ == "__main__":
    main()
