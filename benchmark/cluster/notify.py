"""`benchmark_notify`: hand a run's verdict to a webhook or a command, within bounds of time and bytes.

A failure is reported in one sentence and does not affect the run. No sentence contains the webhook's address or a
header: anyone who knows a chat's webhook may post there.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from benchmark import __version__
from benchmark.errors import InputError
from benchmark.rundir import PROGRAM
from benchmark.secret_settings import LEAST_MASKED, MASK, check_headers
from benchmark.text.columns import clean
from benchmark.variables import NOTIFY, NOTIFY_HEADERS

# For everything: resolving, connecting, sending, answering; or the command from start to end.
LIMIT_S = 20
# Bytes that are kept of an answer, or of a command's stderr, and characters that are shown.
MOST_READ, MOST_SHOWN = 2000, 200

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class NotNotifiedError(Exception):
    """The receiver was not reached, or refused; the message is one sentence without secrets."""


@dataclass(frozen=True, repr=False)
class Receiver:
    """A webhook (`url`, with `headers`) or a command (`words`, the first one an absolute path)."""

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The receiver's name in a sentence: the webhook's host, or the program."""
        return str(urlsplit(self.url).hostname) if self.url else Path(self.words[0]).name

    def mask(self, text: str) -> str:
        """Return the text without anything from the user's settings that may be secret."""
        given = [self.url, *_after_host(self.url)] if self.url else list(self.words[1:])
        given += [word for value in self.headers.values() for word in (value, *value.split())]
        # A program in `sh -c '...'` may print any single word of it.
        parts = [part for word in self.words[1:] for part in re.split(r"[\s'\"=;|&<>()]+", word)]
        given += [*parts, *(each for part in parts for each in _after_host(part))]
        for value in sorted(given, key=len, reverse=True):
            text = text.replace(value, MASK) if len(value) >= LEAST_MASKED else text
        return text


def receiver_of(variables: Mapping[str, Any], directory: Path) -> Receiver | None:
    """Return the receiver in a node's variables, or None; a command is looked up on PATH or relative to `directory`.

    Raises InputError with every problem, but without the values.
    """
    given, problems = variables.get(NOTIFY), list[str]()
    headers = check_headers(NOTIFY_HEADERS, variables.get(NOTIFY_HEADERS), problems)
    problems += [f"{NOTIFY_HEADERS}.{name} must be ASCII." for name, value in headers.items() if not value.isascii()]
    receiver = None
    if given is not None and not isinstance(given, str):
        problems.append(f"{NOTIFY} must be text: a URL or a command.")
    elif given and _SCHEME.match(given.strip()):
        receiver = Receiver(url=given.strip(), headers=headers)
        problems += _url_problems(receiver.url)
    elif given and given.strip():
        receiver = Receiver(words=_words(given, directory, problems))
        if headers:
            problems.append(f"{NOTIFY_HEADERS} are for a webhook, and {NOTIFY} is a command.")
    elif headers:
        problems.append(f"{NOTIFY_HEADERS} are for a webhook, and {NOTIFY} is empty.")
    if problems:
        raise InputError("\n".join(problems))
    return receiver


def _after_host(url: str) -> list[str]:
    """Return what may be secret in a URL, whole and in parts: everything but the host."""
    path = url.partition("://")[2].partition("/")[2]
    return [path, *re.split(r"[/?&=]", path)]


def notify(receiver: Receiver, verdict: bytes) -> None:
    """Send the verdict as JSON, within LIMIT_S seconds. Raises NotNotifiedError."""
    if receiver.url:
        _within_limit(lambda: _post(receiver, verdict), receiver)
    else:
        _run(receiver, verdict)


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        fit = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return [f"{NOTIFY} is not the address of a webhook such as https://example.com/hook."]
    if not fit or not _PRINTABLE.fullmatch(url):
        return [f"{NOTIFY} is not the address of a webhook such as https://example.com/hook."]
    if parts.username is not None:
        return [f"{NOTIFY} has a password in the URL: give it as a header, by {NOTIFY_HEADERS}."]
    return []


def _words(given: str, directory: Path, problems: list[str]) -> tuple[str, ...]:
    try:
        program, *words = shlex.split(given)
    except ValueError:
        problems.append(f"{NOTIFY} is a command with a quote that is not closed.")
        return ()
    found = shutil.which(str(directory / Path(program).expanduser()) if "/" in program else program)
    if found is None or "\x00" in given:
        problems.append(
            f"{NOTIFY} is neither a URL (http:// or https://) nor a command: its first word is neither a program on "
            f"PATH nor an executable file, seen from {directory}."
        )
        return ()
    return (str(Path(found).absolute()), *words)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: its target would get the headers for another server, and urllib does not resend the body."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(receiver: Receiver, verdict: bytes) -> None:
    known = {"Content-Type": "application/json", "User-Agent": f"{PROGRAM}/{__version__}"}
    request = urllib.request.Request(receiver.url, verdict, {**known, **receiver.headers}, method="POST")  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=LIMIT_S):
            return
    except urllib.error.HTTPError as error:
        with error:
            if 300 <= error.code < 400:
                raise NotNotifiedError(
                    f"{receiver.name} redirects ({error.code}), which is not followed: set {NOTIFY} to where it leads."
                ) from None
            words = f"{error.code} {error.reason}"
            with suppress(OSError, http.client.HTTPException):
                words += f": {error.read(MOST_READ).decode('utf-8', 'replace')}"
        raise NotNotifiedError(f"{receiver.name} answered {_shown(receiver, words)}.") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            raise _silent(receiver) from None
        raise NotNotifiedError(f"{receiver.name} could not be reached: {_shown(receiver, _words_of(cause))}.") from None


def _words_of(cause: object) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return f"the TLS connection failed ({cause.reason})"
    if isinstance(cause, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(cause, http.client.HTTPException):
        return f"its answer is not HTTP ({type(cause).__name__})"
    return str(cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__)


def _within_limit(post: Callable[[], None], receiver: Receiver) -> None:
    """Call in a thread: a socket's timeout is per read, and resolving a name has none."""
    ended: list[NotNotifiedError | None] = []

    def work() -> None:
        try:
            post()
        except NotNotifiedError as error:
            ended.append(error)
        except Exception as error:  # its text may contain secrets
            ended.append(NotNotifiedError(f"{receiver.name} could not be reached: {type(error).__name__}."))
        else:
            ended.append(None)

    thread = threading.Thread(target=work, name="benchmark_notify", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    error = ended[0] if ended else _silent(receiver)
    if error is not None:
        raise error


def _silent(receiver: Receiver) -> NotNotifiedError:
    return NotNotifiedError(f"{receiver.name} gave no answer within {LIMIT_S} s.")


def _run(receiver: Receiver, verdict: bytes) -> None:
    process, said = None, bytearray()
    try:
        # A file rather than a pipe: a command that does not read cannot block the writer.
        with tempfile.TemporaryFile() as given, _ctrl_c_after():
            given.write(verdict)
            given.seek(0)
            process = subprocess.Popen(
                receiver.words,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        reading = threading.Thread(target=_keep_end, args=(process.stderr, said), daemon=True)
        reading.start()
        code = process.wait(LIMIT_S)
    except OSError as error:
        raise NotNotifiedError(f"{receiver.name} could not be started: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise NotNotifiedError(f"{receiver.name} did not end within {LIMIT_S} s and was stopped.") from None
    finally:
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    # Processes that it left running may hold its stderr open.
    reading.join(1)
    if code != 0:
        last = bytes(said).decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        raise NotNotifiedError(f"{receiver.name} {how}{': ' if last else ''}{_shown(receiver, last)}.")


@contextmanager
def _ctrl_c_after() -> Iterator[None]:
    """Delay Ctrl-C until the end of this block: during the start of a process, that process would be left running."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _keep_end(stream: IO[bytes] | None, said: bytearray) -> None:
    """Read to the end and keep the last bytes, so that a program that prints much is not blocked."""
    with suppress(OSError, ValueError):
        while stream is not None and (chunk := os.read(stream.fileno(), 1 << 16)):
            said += chunk
            del said[:-MOST_READ]


def _shown(receiver: Receiver, text: str) -> str:
    return clean(receiver.mask(text))[:MOST_SHOWN].rstrip(". ")
