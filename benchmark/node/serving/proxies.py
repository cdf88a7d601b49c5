"""The proxy for a server, from HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as other clients read them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from benchmark.errors import InputError

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that named it; reports name the variable, never the address or password."""

    variable: str
    url: str = field(repr=False)


def proxy_for(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a server; None: it is reached directly, as everything on loopback is.

    Raises InputError if the variable does not name a usable proxy; its value is not in the message.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or _is_excepted(host, parts.port or DEFAULT_PORTS[parts.scheme], environment):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        # If both are set, the lower-case one counts.
        for variable in (name, name.upper()):
            if value := environment.get(variable, "").strip():
                return _parsed(variable, value)
    return None


def _parsed(variable: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in DEFAULT_PORTS:
        raise InputError(
            f"{variable} does not name an HTTP proxy: write it as http://proxy:3128, or list the server in NO_PROXY."
        )
    name = f"[{host}]" if ":" in host else host
    user = ":".join(quote(unquote(part), safe="") for part in (parts.username, parts.password) if part is not None)
    return Proxy(variable, f"{parts.scheme}://{user}{'@' if user else ''}{name}:{port or DEFAULT_PORTS[parts.scheme]}")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_excepted(host: str, port: int, environment: Mapping[str, str]) -> bool:
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return any(_covers(one.strip().lower(), host, port) for one in excepted.split(","))


def _covers(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY covers a server: a name, domain, address, network or `*`, maybe a port."""
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.startswith("[")):
        return int(number) == port and _covers(name, host, port)
    entry = entry.strip("[]").removeprefix("*.").lstrip(".")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return entry == "*" or (bool(entry) and (host == entry or host.endswith(f".{entry}")))
