"""A real HTTP server that is told how to answer, for `benchmark_notify`."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def say(text: bytes) -> Callable[[socketserver.StreamRequestHandler], None]:
    """Return what answers with a text."""

    def answer(handler: socketserver.StreamRequestHandler) -> None:
        handler.wfile.write(text)

    return answer


@contextmanager
def server(
    answer: Callable[[socketserver.StreamRequestHandler], None],
    requests: list[bytes],
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """A server that keeps each request and answers as it is told; yields its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n") and (line := self.rfile.readline()):
                head += line
            length = next((int(x.split(b":")[1]) for x in head.splitlines() if x.lower().startswith(b"content-le")), 0)
            requests.append(head + self.rfile.read(length))
            answer(self)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, peer = super().get_request()
            return tls.wrap_socket(connection, server_side=True) if tls else connection, peer

    with Server(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
