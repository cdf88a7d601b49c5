"""A session with one node: lines in both directions over one ssh process, bounded in time and bytes.

Each session has its own random mark, which separates our lines from anything that the user's shell prints.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from benchmark.fleet.errors import Lost, Refused
from benchmark.fleet.login_shell import OWN_ENVIRONMENT
from benchmark.fleet.ssh import Ssh, dropped
from benchmark.progress import PREFIX

# For requests that a healthy node answers in a second; with a hanging disk or driver it never answers.
ANSWER_S = 60
# The limit on the node expires after the controller's, which has the better message; then it kills.
AFTER_S = 5
# How much a node may send: a run's facts, and then a line of progress now and then.
MOST_AT_ONCE = 400_000
MOST_PER_S = 10_000
# How long to wait for the exit of an ssh whose output has ended.
EXIT_S = 2.0
# How long to retry a connection that was dropped because too many are logging in.
DROPPED_S, DROPPED_PAUSE_S = 20, (0.5, 2.0)
# Connections opened at once: a handshake takes a tenth of a second of processor time at both ends. Fewer through a jump
# host, since sshd allows only ten logins in progress.
CALLS_AT_ONCE, CALLS_THROUGH_JUMP = 64, 8
_CHUNK = 1 << 16
# ssh's own exit code if it could not connect or lost the connection.
SSH_FAILED = 255
# The length of a progress line; see benchmark.progress.
MOST_PROGRESS = 200
FLOOD = "The node sends too much"
# The limit of a command's output.
MOST_PRINTED = 16 * 2**20


class Session:
    """A session with a /bin/sh program on the node: see `open`."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self._process, self.mark = process, mark
        self._said = self._errors = b""
        self._began = time.monotonic()
        self._received = 0
        self._closed = False
        self.heard: Callable[[str], None] | None = None
        """Receives each progress line of standard error, without its prefix."""
        self._progress = b""

    @classmethod
    async def open(cls, ssh: Ssh, program: str, arguments: list[str], limit_s: float) -> Session:
        """Start the program on the node, with the mark in place of "{mark}" in its arguments; return once it runs.

        It ends by itself after `limit_s` seconds. Raises Lost, and Refused if the login shell runs no command.
        """
        if ssh.login is not None:
            await _in_thread(ssh.login)
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        mark = first + second
        sent = program.encode()
        words = shlex.join([argument.replace("{mark}", mark) for argument in arguments])
        # The mark is in two halves: printing the command does not print the mark. The program is sent through standard
        # input only after the first answer, so that nothing before sh can read it.
        line = (
            f'{OWN_ENVIRONMENT}echo {first}""{second} here; echo {first}""{second} >&2; '
            f"program=$(head -c {len(sent)}); limit=; "
            f'command -v timeout > /dev/null && limit="timeout -k {AFTER_S} {int(limit_s) + AFTER_S}"; '
            # If sh is bash, it would take options from there, and pass those of one script to all its children.
            f'exec env -u SHELLOPTS $limit sh -c "$program" {words}'
        )
        try:
            command = ssh.command(line)
        except OSError as error:
            raise Lost(str(error)) from error
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
                raise Refused(
                    f"{os.fsdecode(command[0])} cannot be run on this controller ({error.strerror}): set "
                    "ansible_ssh_executable to its ssh."
                ) from error
            raise Lost(str(error)) from error
        session = cls(process, mark)
        try:
            await session._connect_pipes()
            await session._hear_first_word()
            session.send_bytes(sent)
        except Lost as lost:
            session.close()
            raise Lost(await ssh.explain(str(lost))) from lost
        except BaseException:
            session.close()
            raise
        return session

    async def _connect_pipes(self) -> None:
        loop, process = asyncio.get_running_loop(), self._process
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 # pipes were requested
        self._reader = asyncio.StreamReader(limit=MOST_AT_ONCE)
        self._output, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), process.stdout
        )
        self._input, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        os.set_blocking(process.stderr.fileno(), False)
        loop.add_reader(process.stderr.fileno(), self._read_errors)

    async def _hear_first_word(self) -> None:
        try:
            word, _ = await self.receive(ANSWER_S)
        except Lost as lost:
            code = await self._exit_code()
            if code is None and (does := await self._does_instead()):
                raise Refused(
                    f"The user's login shell on the node {does} and runs no command: does one of its files (~/.bashrc, "
                    "~/.zshenv, ~/.tcshrc, config.fish) ask a question, or exec another shell? Restrict that to "
                    "interactive shells, or set ansible_user to another user."
                ) from lost
            if code in (None, SSH_FAILED):
                raise
            said = self._noise or _in_a_line(self.errors())
            printed = f", and prints {said!r}" if said else ""
            raise Refused(
                f"The user's login shell on the node runs no command: it ends with exit code {code}{printed}. Set "
                "ansible_user to a user with a shell that runs commands: bash, dash, zsh, fish, tcsh."
            ) from lost
        if word == "here\r":
            raise Refused(
                "The user's login on the node gives commands a terminal, which changes the data: does a ForceCommand "
                "of its sshd, or a line in one of its files, run script or the like? Exempt commands from it, or set "
                "ansible_user to another user."
            )
        if word != "here":
            raise Lost("the session gave an unexpected answer")

    async def _does_instead(self) -> str:
        """Return what a login does instead of running the command: it prints, or reads; empty: it hangs."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.1):
                # Also a line without its end.
                self._said = (self._said + await self._reader.read(_CHUNK))[:_CHUNK]
        if self._noise:
            return f"prints {self._noise!r}"
        # A shell that reads ends with its input; one that hangs does not.
        self.end_input()
        return "reads its input" if await self._exit_code() not in (None, SSH_FAILED) else ""

    @property
    def _noise(self) -> str:
        return _in_a_line(self._said.decode(errors="replace"))

    def send(self, line: str) -> None:
        """Send a line; it is lost if the other side is gone."""
        self.send_bytes(line.encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """Send the bytes."""
        if not self._closed:
            self._input.write(data)

    def end_input(self) -> None:
        """End the input that the node reads."""
        self._input.write_eof()

    async def receive(self, silence_s: float) -> tuple[str, str]:
        """Return the first word and the rest of our next line. Raises Lost and Refused."""
        mark = self.mark.encode() + b" "
        deadline = time.monotonic() + silence_s
        while True:
            line = await self._line(deadline, silence_s)
            before, found, ours = line.partition(mark)
            if found:
                word, _, rest = ours.decode(errors="replace").rstrip("\n").partition(" ")
                return word, rest
            self._said = (self._said + before)[:_CHUNK]

    async def receive_text(self, silence_s: float) -> tuple[str, str, str]:
        """Return all output before our next line, without its last newline, and that line as word and rest."""
        mark, text = self.mark.encode() + b" ", bytearray()
        while True:
            line = await self._line(time.monotonic() + silence_s, silence_s, MOST_PRINTED)
            before, found, ours = line.partition(mark)
            text += before
            if found:
                word, _, rest = ours.decode(errors="replace").rstrip("\n").partition(" ")
                return text.decode(errors="replace").removesuffix("\n"), word, rest

    async def _line(self, deadline: float, silence_s: float, most: int = MOST_AT_ONCE) -> bytes:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                line = await self._reader.readuntil(b"\n")
        except TimeoutError:
            raise Lost(f"accepted a command but gave no answer within {silence_s:g} s") from None
        except asyncio.LimitOverrunError:
            raise Refused(f"{FLOOD}: more than {MOST_AT_ONCE >> 10} KiB where one line was expected.") from None
        except asyncio.IncompleteReadError as end:
            self._said = (self._said + end.partial)[:_CHUNK]
            raise Lost(await self._explain()) from None
        except OSError as error:
            raise Lost(str(error)) from None
        self._received += len(line)
        if self._received > most + MOST_PER_S * (time.monotonic() - self._began):
            raise Refused(f"{FLOOD}: more than {most >> 10} KiB where a few lines were expected.")
        return line

    async def save(self, size: int, path: Path, silence_s: float) -> None:
        """Write the next `size` bytes into a file as they arrive. Raises Lost, and OSError for the file."""
        with path.open("wb") as file:
            await self._copy(size, file, silence_s)

    async def _copy(self, size: int, file: BinaryIO, silence_s: float) -> None:
        left = size
        while left:
            try:
                async with asyncio.timeout(silence_s):
                    data = await self._reader.read(min(left, _CHUNK))
            except TimeoutError:
                raise Lost(f"accepted a command but gave no answer within {silence_s:g} s") from None
            except OSError as error:
                raise Lost(str(error)) from None
            if not data:
                raise Lost(await self._explain())
            file.write(data)
            left -= len(data)

    def close(self) -> None:
        """End the process; the node's side ends with its standard input. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._process.stderr is not None:
            asyncio.get_running_loop().remove_reader(self._process.stderr.fileno())
        for transport in (getattr(self, "_input", None), getattr(self, "_output", None)):
            if transport is not None:
                transport.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    async def _explain(self) -> str:
        await self._exit_code()  # it may give the reason only now
        # Not to the end: a master connection that ssh leaves running keeps it open.
        return " ".join(self.errors().split())[-1000:] or "the session ended"

    def _read_errors(self) -> bool:
        """Read standard error, since a full pipe would stop ssh, and keep its end; return whether there was any."""
        assert self._process.stderr  # noqa: S101 # a pipe was requested
        descriptor = self._process.stderr.fileno()
        try:
            said = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        if not said:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._errors = (self._errors + self._without_progress(said))[-_CHUNK:]
        return bool(said)

    def _without_progress(self, said: bytes) -> bytes:
        """Pass on the progress lines; return the other output."""
        if self.heard is None:
            return said
        *lines, self._progress = (self._progress + said).split(b"\n")
        # Other programs' output may not end its line.
        kept, self._progress = (
            (self._progress, b"") if len(self._progress) > MOST_PROGRESS or not said else (b"", self._progress)
        )
        mine = [line for line in lines if line.startswith(PREFIX.encode())]
        for line in mine:
            self.heard(line[len(PREFIX) : MOST_PROGRESS].decode(errors="replace").strip())
        return b"".join(line + b"\n" for line in lines if line not in mine) + kept

    def errors(self) -> str:
        """Return the standard error so far, without what the login printed before our command."""
        while not self._closed and self._read_errors():
            pass
        return self._errors.rpartition(self.mark.encode() + b"\n")[2].decode(errors="replace")

    async def errors_to_end(self) -> str:
        """Return the same, once our end line has come: it may arrive after the one on standard output."""
        end, deadline = f"{self.mark} end\n", time.monotonic() + EXIT_S
        while True:
            ended = self._process.poll() is not None or time.monotonic() > deadline
            said, found, _ = self.errors().partition(end)
            # If the login redirects standard error, it never comes.
            if found or ended:
                return said
            await asyncio.sleep(0.01)

    async def _exit_code(self) -> int | None:
        """Return ssh's exit code; None if it has not ended or was killed."""
        deadline = time.monotonic() + EXIT_S
        while (code := self._process.poll()) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return code if code is None or code >= 0 else None


def calls_at_once() -> dict[bool, asyncio.Semaphore]:
    """Return the limits for opening connections at once: through a jump host (True) and directly (False)."""
    return {False: asyncio.Semaphore(CALLS_AT_ONCE), True: asyncio.Semaphore(CALLS_THROUGH_JUMP)}


async def call(ssh: Ssh, program: str, arguments: list[str], limit_s: float, calls: asyncio.Semaphore) -> Session:
    """Open a session, within the limit of connections at once; retry if the server dropped it for too many logins."""
    until = time.monotonic() + DROPPED_S
    while True:
        try:
            async with calls:
                return await Session.open(ssh, program, arguments, limit_s)
        except Lost as lost:
            if time.monotonic() > until or not dropped(str(lost)):
                raise
        # So that not all retry at the same moment.
        await asyncio.sleep(random.uniform(*DROPPED_PAUSE_S))  # noqa: S311 # no secret


def _in_a_line(said: str) -> str:
    """Return the beginning of a login's output in one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:200]


async def _in_thread(work: object) -> None:
    """Run blocking work in a thread, which is abandoned if it takes too long."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()  # type: ignore[operator]
        except Exception as error:  # whatever a connection's plugin raises
            failure = error
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(failure))

    threading.Thread(target=run, daemon=True).start()
    try:
        async with asyncio.timeout(ANSWER_S):
            failure = await done
    except TimeoutError:
        raise Lost(f"accepted a command but gave no answer within {ANSWER_S} s") from None
    if failure is not None:
        raise Lost(" ".join(str(failure).split())[-300:]) from failure
