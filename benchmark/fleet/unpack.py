"""What came back from a node: unpacked with distrust, and why it failed in a sentence."""

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

# The files of a run; anything else in the archive is left out.
KNOWN = re.compile(
    r"(mlperf_datacenter_[\w.-]+\.(json|txt)|((accuracy|solo|TEST06|repeat\d+)_)?samples\.jsonl|"
    r"(repeat\d+_)?telemetry\.jsonl|(benchmark|endpoint)\.log|server_ended|oom_kills|TEST06_audit\.config|"
    r"((accuracy|solo|TEST06|probe\d+|burst|repeat\d+)_)?(mlperf_log_[\w.-]+|user\.conf))"
)
MAX_FILES = 250
# Every tar archive ends with two such blocks; one whose packer was killed does not, however whole its gzip stream is.
END_OF_TAR = bytes(1024)
_CHUNK = 1 << 16


class _Bounded(gzip.GzipFile):
    """Counts all that is read: what is passed over in an archive costs time too, and a little can unpack to a lot."""

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
        """Read what is left, with gzip's checksum; raise EOFError where what was read is no whole tar archive."""
        while self.read(_CHUNK):
            pass
        if self._last != END_OF_TAR:
            raise EOFError("it is cut off")


def unpack(archive: Path, directory: Path, most: int = MAX_SAMPLES_BYTES, expected: Collection[str] = ()) -> list[str]:
    """Unpack the known files of a node's archive, `most` bytes together, into `directory`; return their names.

    Nothing else is written: no directory, link, device or foreign name. A file of an earlier unpacking is replaced
    whole. Raises InputError, one sentence, for an archive that is damaged or too large, or lacks an `expected` file.
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
            raise InputError(f"{archive.name}: came without {', '.join(lacking)[:200]}.")
        for name in names:
            (beside / name).replace(directory / name)
    # gzip's own is one of OSError's kinds.
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive.name}: cannot be unpacked ({error}).") from error
    except OSError as error:
        raise InputError(on_controller(error, directory)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return names


def why_failed(exit_code: str, directory: Path, limit: str) -> str | None:
    """Return why a run that ended with `exit_code` is no complete one, in a sentence; None for a complete one.

    `limit`: in words, its time limit on the node.
    """
    if exit_code == "0" or (exit_code == "1" and any(directory.glob(NODE_RESULTS))):
        return None
    if exit_code == "1":
        # As Python ends that does not start, or not with what is to run.
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
        return "The benchmark's process is gone without an exit code: it was killed together with what watches it."
    return _own_words(directory) or f"The benchmark ended with exit code {exit_code}; see benchmark.log."


def _own_words(directory: Path) -> str | None:
    """Return what the result says of its failure, or the log's last line."""
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
