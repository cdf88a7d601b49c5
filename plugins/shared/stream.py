"""Send files to a node as one tar stream over one SSH session, without buffering them in memory or on disk."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import checkout  # noqa: F401 # puts the checkout on the path
from ansible.errors import AnsibleConnectionFailure

from benchmark.fleet.ssh import Ssh

SSH_FAILED = 255
BUFFER = 2**20


class StreamError(Exception):
    """The message of the node's tar, or that the time limit has passed."""


def send_files(way: Ssh, files: Iterable[Path], directory: str, timeout_s: float) -> None:
    """Write `files` into `directory` (an absolute path) on the node, which is created if it does not exist.

    Raises StreamError, and AnsibleConnectionFailure if the connection was lost.
    """
    far = f"mkdir -p {shlex.quote(directory)} && tar -x -o -f - -C {shlex.quote(directory)}"
    if way.login is not None:
        way.login()
    command = way.command(far)
    with tempfile.TemporaryFile() as said:
        # In its own process group: on this machine tar must end with the shell, or it would keep the pipe open.
        session = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        late = threading.Timer(timeout_s, _end, [session])
        late.start()
        try:
            broken = _feed(session, files)
            code = session.wait()
        finally:
            expired = not late.is_alive()
            late.cancel()
            _end(session)
            session.wait()
        said.seek(0)
        words = " ".join(said.read().decode(errors="replace").split())[-300:]
    if expired:
        raise StreamError(f"they did not arrive within {timeout_s:g} s")
    if code == SSH_FAILED:
        raise AnsibleConnectionFailure(words)
    if code != 0 or broken:
        raise StreamError(words or "the connection broke")


def _end(session: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session.pid, signal.SIGKILL)


def _feed(session: subprocess.Popen[bytes], files: Iterable[Path]) -> bool:
    """Write the archive; return whether the other side closed the pipe before its end."""
    assert session.stdin  # noqa: S101 # a pipe was requested
    try:
        with session.stdin, tarfile.open(fileobj=session.stdin, mode="w|", bufsize=BUFFER) as archive:
            for file in files:
                archive.add(file, arcname=file.name, recursive=False, filter=_plain)
    except BrokenPipeError:
        return True
    return False


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop the owner and mode that the file has on the controller."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry
