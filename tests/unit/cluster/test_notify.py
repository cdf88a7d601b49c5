"""Whom `benchmark_notify` names, and that none of them can do a run any harm: real servers, real programs."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster import notify as module
from benchmark.cluster.notify import NotNotifiedError, notify, receiver_of
from benchmark.errors import InputError
from tests.certificates import Authority
from tests.processes import assert_ended
from tests.webhook import OK, say, server

VERDICT = json.dumps({"outcome": "valid", "nodes": "x" * 200_000}).encode()
PATH = "/services/T0SECRET/B0SECRET"


def send(directory: Path, given: str, **headers: str) -> None:
    receiver = receiver_of({"benchmark_notify": given, "benchmark_notify_headers": headers}, directory)
    assert receiver is not None
    notify(receiver, VERDICT)


def test_a_webhook_gets_the_verdict_and_the_headers(tmp_path: Path) -> None:
    requests: list[bytes] = []
    with server(say(OK), requests) as url:
        send(tmp_path, url + PATH, Authorization="Bearer geheim1234")
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST {PATH} HTTP/1.1".encode())
    assert b"Authorization: Bearer geheim1234" in head
    assert b"Content-Type: application/json" in head
    assert body == VERDICT


def hang(handler: socketserver.StreamRequestHandler) -> None:
    handler.rfile.read()


def drip(handler: socketserver.StreamRequestHandler) -> None:
    """No read takes long, and yet it never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    with suppress(OSError):
        while True:
            handler.wfile.write(b"X-More: 1\r\n")
            threading.Event().wait(0.05)


FAULTS = {
    "hangs": (hang, "gave no answer within 0.6 s"),
    "drips": (drip, "gave no answer within 0.6 s"),
    "500": (
        say(b"HTTP/1.1 500 Oops\r\nContent-Length: 400\r\n\r\nno \x1b[31mhook " + PATH.encode() + b" here"),
        "answered 500 Oops: no ?[31mhook /*** here",
    ),
    "404 without an end": (say(b"HTTP/1.1 404 Gone\r\nContent-Length: 900\r\n\r\ncut"), "answered 404 Gone"),
    "redirects": (say(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\n\r\n"), "redirects (307)"),
    "cuts": (say(b""), "could not be reached: it closed the connection without an answer"),
    "speaks no HTTP": (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "could not be reached: its answer is not HTTP (BadStatusLine)"),
    "floods": (say(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), "could not be reached: its answer is not HTTP"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_webhook_that_fails_is_a_sentence(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, said = FAULTS[fault]
    if "0.6" in said:
        monkeypatch.setattr(module, "LIMIT_S", 0.6)
    requests: list[bytes] = []
    with server(answer, requests) as url, pytest.raises(NotNotifiedError) as told:
        send(tmp_path, url + PATH, Authorization="Bearer geheim1234")
    sentence = str(told.value)
    assert said in sentence
    assert sentence.startswith("127.0.0.1 ")
    assert "SECRET" not in sentence
    assert "geheim" not in sentence
    assert len(sentence) < 300
    assert len(requests) == 1


def test_tls_is_checked_and_nothing_sent_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, requests = Authority(tmp_path), list[bytes]()
    with server(say(OK), requests, authority.context()) as url:
        with pytest.raises(NotNotifiedError, match=r"could not be reached: unable to get local issuer certificate\.$"):
            send(tmp_path, url + PATH, Authorization="Bearer geheim1234")
        assert requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        send(tmp_path, url + PATH)
    assert len(requests) == 1


def test_a_port_without_tls_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1 << 16)

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(NotNotifiedError, match=r"the TLS connection failed \([A-Z_]+\)\.$"):
            send(tmp_path, f"https://127.0.0.1:{listening.getsockname()[1]}/")


def test_the_environments_proxy_leads_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    with server(say(OK), requests) as url:
        monkeypatch.setenv("http_proxy", url)
        send(tmp_path, "http://hooks.invalid/of-the-team")
    assert requests[0].startswith(b"POST http://hooks.invalid/of-the-team HTTP/1.1\r\n")


def test_a_port_where_nobody_listens_is_a_sentence(tmp_path: Path) -> None:
    with server(hang, []) as url:
        pass
    with pytest.raises(NotNotifiedError, match=r"^127\.0\.0\.1 could not be reached: Connection refused\.$"):
        send(tmp_path, url)


def script(directory: Path, text: str, mode: int = 0o755) -> Path:
    path = directory / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def test_a_command_gets_the_verdict_on_stdin(tmp_path: Path) -> None:
    script(tmp_path, 'cat > "$1"')
    send(tmp_path, f"./hook '{tmp_path}/with space'")
    assert (tmp_path / "with space").read_bytes() == VERDICT
    # One that does not read, prints without end for a while, and leaves something running does no harm either.
    script(tmp_path, "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; sleep 300 & echo $! > left")
    send(tmp_path, f"sh -c 'cd {tmp_path} && ./hook'")
    os.kill(int((tmp_path / "left").read_text()), 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo first >&2; echo no mail for $1 >&2; exit 3", "hook ended with exit code 3: no mail for ***."),
        ("kill -KILL $$", "hook was killed by SIGKILL."),
        ("sleep 300 & echo $! > child; wait", "hook did not end within 0.6 s and was stopped."),
        ("trap '' TERM; yes >&2", "hook did not end within 0.6 s and was stopped."),
    ],
)
def test_a_command_that_fails_is_a_sentence(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "within" in said:
        monkeypatch.setattr(module, "LIMIT_S", 0.6)
        monkeypatch.chdir(tmp_path)
    script(tmp_path, text)
    with pytest.raises(NotNotifiedError) as told:
        send(tmp_path, "./hook geheim1234")
    assert str(told.value) == said
    if (tmp_path / "child").exists():
        assert_ended(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize(
    "said", ["curl: cannot resolve https://chat/hooks/T00/geheim1234", "geheim1234: no such hook", "key=geheim1234"]
)
def test_of_a_shell_s_words_none_is_repeated(said: str, tmp_path: Path) -> None:
    given = f"sh -c 'echo \"{said}\" >&2; : --key=geheim1234 https://chat/hooks/T00/geheim1234; exit 3'"
    with pytest.raises(NotNotifiedError) as told:
        send(tmp_path, given)
    assert str(told.value).startswith("sh ended with exit code 3: ")
    assert "geheim" not in str(told.value)


def test_ctrl_c_amid_the_start_of_a_command_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        """Ctrl-C comes when the process runs and nobody knows it yet."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        send(tmp_path, "sleep 300")
    assert_ended(started[0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_is_gone_by_then_is_a_sentence(tmp_path: Path) -> None:
    script(tmp_path, "")
    receiver = receiver_of({"benchmark_notify": "./hook"}, tmp_path)
    assert receiver is not None
    (tmp_path / "hook").unlink()
    with pytest.raises(NotNotifiedError, match=r"^hook could not be started: No such file or directory\.$"):
        notify(receiver, VERDICT)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ftp://example.com/SECRET", "not the address of a webhook"),
        ("file:///etc/passwd?SECRET", "not the address of a webhook"),
        ("https:///SECRET", "not the address of a webhook"),
        ("https://example.com:99999/SECRET", "not the address of a webhook"),
        ("https://example.com/SECRET x", "not the address of a webhook"),
        ("https://example.com/SECRETü", "not the address of a webhook"),
        ("https://a:SECRET@example.com/", "has a password in the URL"),
        ("hooks.example.com/SECRET", "is neither a URL"),
        ("no-such-program SECRET", "is neither a URL"),
        ("./plain SECRET", "is neither a URL"),
        ("./directory SECRET", "is neither a URL"),
        ("mail 'SECRET", "a quote that is not closed"),
        (["mail", "SECRET"], "must be text"),
        (True, "must be text"),
        (7, "must be text"),
    ],
)
def test_what_is_neither_is_refused_without_its_value(given: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    script(tmp_path, "", 0o644).rename(tmp_path / "plain")
    with pytest.raises(InputError) as told:
        receiver_of({"benchmark_notify": given}, tmp_path)
    assert said in str(told.value)
    assert str(told.value).startswith("benchmark_notify ")
    assert "SECRET" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "headers", "said"),
    [
        ("http://127.0.0.1/", {"A B": "SECRET"}, "is not the name of an HTTP header"),
        ("http://127.0.0.1/", {"A": "SECRET\nB: 1"}, "without control characters"),
        ("http://127.0.0.1/", {"A": "SECRETü"}, "must be ASCII"),
        ("http://127.0.0.1/", {"A": ["SECRET"]}, "must be text or a number"),
        ("http://127.0.0.1/", "SECRET", "must be a dictionary"),
        ("", {"A": "SECRET"}, "benchmark_notify is empty"),
        (f"{sys.executable} -V", {"A": "SECRET"}, "benchmark_notify is a command"),
    ],
)
def test_headers_are_refused_without_their_value(given: str, headers: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        receiver_of({"benchmark_notify": given, "benchmark_notify_headers": headers}, tmp_path)
    assert said in str(told.value)
    assert "SECRET" not in str(told.value)


@pytest.mark.parametrize("given", [{}, {"benchmark_notify": ""}, {"benchmark_notify": None}, {"benchmark_notify": " "}])
def test_nobody_is_named(given: dict[str, object], tmp_path: Path) -> None:
    assert receiver_of(given, tmp_path) is None
