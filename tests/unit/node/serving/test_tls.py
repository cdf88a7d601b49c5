"""TLS, and what is wrong with it, told as such; and names that are no server's."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmark.errors import SetupError
from benchmark.node.serving.client import Client, Request
from benchmark.node.serving.failures import TlsFailure, Unreachable
from tests.certificates import Authority
from tests.openai_server import OpenAIServer
from tests.raw_server import RawServer, polite
from tests.unit.node.endpoint.asked import TEXT, Heard

Opened = Callable[..., Client]


@pytest.fixture
def opened() -> Iterator[Opened]:
    with ExitStack() as stack:

        def make(url: str, ca_file: str | Path = "") -> Client:
            client = Client([url], None, 60, lambda: None, str(ca_file))
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def get(client: Client) -> str:
    return client.call(client.get(client.targets[0], "/v1/models"))


def test_a_server_with_its_own_authority_is_measured(authority: Authority, opened: Opened) -> None:
    with RawServer(polite, context=authority.context()) as server:
        client = opened(server.url, authority.path)
        assert "served" in get(client)
        for _ in range(3):
            heard = Heard()
            client.submit(TEXT, heard, Request("/v1/chat/completions", {}))
            heard.wait()
            assert not heard.errors
        assert server.opened == 2  # one for the question, one for all queries


def wrong(authority: Authority) -> dict[str, tuple[ssl.SSLContext, bool, str]]:
    """Return servers: with what certificate, whether the authority is known, and what has to be said."""
    return {
        "unknown authority": (
            authority.context(),
            False,
            "is from an authority that this node does not trust (unable to get local issuer certificate): set "
            "benchmark_endpoint_ca_file",
        ),
        "another name": (authority.context("other.example"), True, "is for another name: IP address mismatch"),
        "expired": (authority.context(ends=-1), True, "has expired: renew it, or correct this node's clock."),
        "not yet": (authority.context(begins=1), True, "is not valid yet: renew it, or correct this node's clock."),
    }


@pytest.mark.parametrize("fault", ["unknown authority", "another name", "expired", "not yet"])
def test_what_is_wrong_with_a_certificate_is_said(fault: str, authority: Authority, opened: Opened) -> None:
    context, known, said = wrong(authority)[fault]
    with RawServer(polite, context=context) as server:
        client = opened(server.url, authority.path if known else "")
        with pytest.raises(TlsFailure) as reported:
            get(client)
        assert str(reported.value).startswith(f"The certificate of {server.url} ")
        assert said in str(reported.value)
        heard = Heard()
        client.submit(TEXT, heard, Request("/v1/chat/completions", {}))
        heard.wait()
        assert heard.errors[0] == str(reported.value)


def test_a_server_without_tls_behind_https(opened: Opened) -> None:
    with OpenAIServer() as server:
        client = opened(server.url.replace("http:", "https:"))
        with pytest.raises(TlsFailure, match=r"https://127.0.0.1:\d+ answers without TLS: write http:// in"):
            get(client)


def test_a_server_with_tls_behind_http(authority: Authority, opened: Opened) -> None:
    with RawServer(polite, context=authority.context()) as server:
        client = opened(server.url.replace("https:", "http:"))
        with pytest.raises(TlsFailure, match="accepts only TLS: write https:// in benchmark_endpoint_urls"):
            get(client)


def test_a_ca_file_that_cannot_be_used_is_refused(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"benchmark_endpoint_ca_file: /no/ca.pem cannot be read: No such file"):
        opened("https://127.0.0.1:1", "/no/ca.pem")
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(SetupError, match=r"ca.pem holds no certificate in PEM form\."):
        opened("https://127.0.0.1:1", tmp_path / "ca.pem")


def test_a_name_without_an_address_is_said(opened: Opened) -> None:
    client = opened("http://no-such-host.invalid:8000")
    with pytest.raises(Unreachable, match=r"cannot be reached: no-such-host\.invalid has no address"):
        get(client)
