"""Which proxy leads to a server."""

from __future__ import annotations

import pytest

from benchmark.errors import InputError
from benchmark.node.serving.proxies import Proxy, proxy_for

BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://tls:2"}


@pytest.mark.parametrize(
    ("url", "environment", "variable", "address"),
    [
        ("http://far:8000", BOTH, "HTTP_PROXY", "http://plain:1"),
        ("https://far", BOTH, "HTTPS_PROXY", "http://tls:2"),
        ("https://far", {**BOTH, "https_proxy": "small:3"}, "https_proxy", "http://small:3"),
        ("https://far", {"ALL_PROXY": "http://any"}, "ALL_PROXY", "http://any:80"),
        ("https://far", {"HTTPS_PROXY": "https://me:a:b%2Fc@[::2]:4"}, "HTTPS_PROXY", "https://me:a%3Ab%2Fc@[::2]:4"),
        ("http://10.1.2.3", {**BOTH, "NO_PROXY": "10.2.0.0/16,other"}, "HTTP_PROXY", "http://plain:1"),
        ("http://notexample.org", {**BOTH, "no_proxy": "example.org"}, "HTTP_PROXY", "http://plain:1"),
        ("http://far:8000", {**BOTH, "no_proxy": "far:9000"}, "HTTP_PROXY", "http://plain:1"),
    ],
)
def test_a_server_is_reached_through(url: str, environment: dict[str, str], variable: str, address: str) -> None:
    assert proxy_for(url, environment) == Proxy(variable, address)


@pytest.mark.parametrize(
    ("url", "excepted"),
    [
        ("http://localhost:8000", ""),
        ("http://127.0.0.7:8000", ""),
        ("https://[::1]:8000", ""),
        ("http://10.1.2.3", "10.0.0.0/8"),
        ("http://[fd00::1]:8000", "fd00::/8"),
        ("http://far:8000", "other, far"),
        ("http://far:8000", "far:8000"),
        ("https://far", "far:443"),
        ("http://a.far", ".far"),
        ("http://a.far", "*.far"),
        ("http://far", "*"),
    ],
)
def test_a_server_is_reached_directly(url: str, excepted: str) -> None:
    assert proxy_for(url, {**BOTH, "NO_PROXY": excepted}) is None
    assert proxy_for(url, {}) is None


@pytest.mark.parametrize("value", ["socks5://hidden:1080", "http://", "http://hidden:port", "http://[hidden"])
def test_an_unusable_proxy_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(InputError, match="HTTP_PROXY does not name an HTTP proxy") as reported:
        proxy_for("http://far", {"HTTP_PROXY": value})
    assert "hidden" not in str(reported.value)
    assert "hidden" not in repr(Proxy("HTTP_PROXY", "http://hidden"))
