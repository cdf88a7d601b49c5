"""Unpack a node's files as untrusted data, and say in a sentence why its run failed."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Collection
from pathlib import Path

from benchmark.errors import InputError
from benchmark.files import MAX_SAMPLES_BYTES, read_record
from benchmark.fleet.killed import why_killed
from benchmark.records import NodeResult
from benchmark.rundir import NODE_RESULTS
from benchmark.unwritable import on_controller

# The files of a run; anything else in the archive is ignored.
KNOWN = re.compile(
    r"(mlperf_datacenter_[\w.-]+\.(json|txt)|((accuracy|solo|TEST06|repeat\d+)_)?samples\.jsonl|"
    r"(repeat\d+_)?telemetry\.jsonl|(benchmark|endpoint)\.log|server_ended|oom_kills|TEST06_audit\.config|"
    r"((accuracy|solo|TEST06|probe\d+|burst|repeat\d+)_)?(mlperf_log_[\w.-]+|user\.conf))"
)
MAX_FILES = 250
# Every tar archive ends with two zero blocks. If the packer was killed they are missing, even from a whole gzip stream.
END_OF_TAR = bytes(1024)
_CHUNK = 1 << 16


class _Bounded(gzip.GzipFile):
    """Limits all reading: skipped parts of an archive cost time too, and a small archive can unpack to a lot."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self._most = self._left = most
        self._last = b""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{Path(str(self.name)).name}: more than {self._most >> 20} MiB when unpacked.")
        self._last = (self._last + data)[-len(END_OF_TAR) :]
        return data

    def require_end(self) -> None:
        """Read the rest, with gzip's checksum; raise EOFError if the tar archive is incomplete."""
        while self.read(_CHUNK):
            pass
        if self._last != END_OF_TAR:
            raise EOFError("it is cut off")


def unpack(archive: Path, directory: Path, most: int = MAX_SAMPLES_BYTES, expected: Collection[str] = ()) -> list[str]:
    """Unpack the known files of a node's archive, at most `most` bytes, into `directory`; return their names.

    Writes nothing else: no directory, link, device or unknown name. Replaces files of an earlier unpacking. Raises
    InputError, one sentence, for an archive that is damaged, too large, or lacks an `expected` file.
    """
    names: list[str] = []
    room = most
    beside = Path(tempfile.mkdtemp(dir=directory, prefix=".unpack."))
    try:
        with _Bounded(archive, most) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if not member.isreg() or not KNOWN.fullmatch(name):
                    continue
                room -= member.size
                if room < 0 or len(names) >= MAX_FILES:
                    raise InputError(f"{archive.name}: more than {most >> 20} MiB or {MAX_FILES} files.")
                source = tar.extractfile(member)
                if source is not None:
                    with source, (beside / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
                    names.append(name)
            plain.require_end()
        if lacking := sorted(set(expected).difference(names)):
            raise InputError(f"{archive.name}: lacks {', '.join(lacking)[:200]}.")
        for name in names:
            (beside / name).replace(directory / name)
    # Before OSError, the base class of gzip's error.
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive.name}: cannot be unpacked ({error}).") from error
    except OSError as error:
        raise InputError(on_controller(error, directory)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return names


def why_failed(exit_code: str, directory: Path, limit: str) -> str | None:
    """Return in a sentence why a run that ended with `exit_code` is incomplete; None if it is complete.

    `limit`: its time limit on the node, in words.
    """
    if exit_code == "0" or (exit_code == "1" and any(directory.glob(NODE_RESULTS))):
        return None
    if exit_code == "1":
        # Python's exit code if it cannot start, or cannot import the benchmark.
        end = " ".join(_log(directory)[-5:])[:500]
        said = f"the end of its log: {end}" if end else "see benchmark.log."
        return f"The benchmark ended with exit code {exit_code} and left no result; {said}"
    if exit_code == "124":
        return f"The benchmark hung: it was stopped after {limit}."
    if exit_code == "137":
        return why_killed(directory)
    if exit_code == "rebooted":
        return "The node was restarted while the benchmark ran: see journalctl --list-boots there."
    if exit_code == "vanished":
        return "The benchmark's process is gone without an exit code: it was killed together with its parent shell."
    return _own_words(directory) or f"The benchmark ended with exit code {exit_code}; see benchmark.log."


def _own_words(directory: Path) -> str | None:
    """Return the error in the result, or the last line of the log."""
    for path in sorted(directory.glob(NODE_RESULTS)):
        try:
            result = read_record(path, NodeResult)
        except InputError:
            continue
        if result.error:
            return result.error
    log = _log(directory)
    return log[-1][:500] if log else None


def _log(directory: Path) -> list[str]:
    """Return the lines of a run's log."""
    try:
        lines = (directory / "benchmark.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()]
