"""The ports of nodes that serve or compute for each other: opened before anything is loaded, and tested from others."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from benchmark.errors import SetupError
from benchmark.records import ServerPlace
from benchmark.records.system import TRIES_AT_ONCE, TRY_S


def hold(place: ServerPlace) -> socket.socket:
    """Return a socket that listens at a server's place. Raises SetupError, with one sentence, if that is impossible."""
    where = f"{place.host} port {place.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=TRIES_AT_ONCE)
    except socket.gaierror:
        reason = f"this node cannot resolve {place.host}: set benchmark_serve_address to an address of the node"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"{_listener(str(address[0]), place.port)} listens there: end it, or set benchmark_serve_port"
        elif error.errno == errno.EADDRNOTAVAIL:
            reason = "it is not an address of this node: set benchmark_serve_address to one"
        elif error.errno == errno.EACCES:
            reason = "this user may not use that port: set benchmark_serve_port to 1024 or more"
        else:
            reason = error.strerror or str(error)
    raise SetupError(f"No server can listen on {where}: {reason}.")


def unreached(places: Sequence[ServerPlace]) -> dict[str, str]:
    """Return the nodes whose ports cannot be reached from here, with reasons."""
    with ThreadPoolExecutor(TRIES_AT_ONCE) as pool:
        tried = zip(places, pool.map(_try, places), strict=True)
        return {place.node: why for place, why in tried if why}


def _try(place: ServerPlace) -> str:
    try:
        socket.create_connection((place.host, place.port), TRY_S).close()
    except socket.gaierror:
        return f"{place.host} cannot be resolved"
    except TimeoutError:
        return f"no answer within {TRY_S:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _listener(address: str, port: int) -> str:
    """Return in words which process listens there; another user's process is only known to its owner."""
    with suppress(ImportError):
        import psutil  # imported only here: it is only needed for this error

        with suppress(psutil.Error, OSError):
            for one in psutil.net_connections("tcp"):
                there = one.status == psutil.CONN_LISTEN and one.laddr.port == port
                if there and one.laddr.ip in (address, "0.0.0.0", "::") and one.pid:  # noqa: S104 # addresses of other listeners
                    return f"process {one.pid} ({psutil.Process(one.pid).name()})"
    return "something else"
