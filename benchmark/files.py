"""Reading and writing result files: never half a file, never a lost sample, nothing believed unchecked."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from benchmark.errors import InputError
from benchmark.records import SCHEMA_VERSION, Sample, Tick

RecordT = TypeVar("RecordT", bound=BaseModel)

# What a node may send back; a file beyond it is refused by name.
MAX_RESULT_BYTES = 16 * 2**20
MAX_SAMPLES_BYTES = 2 * 2**30
MAX_TELEMETRY_BYTES = 512 * 2**20
MAX_LOG_BYTES = 64 * 2**20
# Of a file that is hashed: so much at once.
HASH_CHUNK = 8 * 2**20


def write_atomic(path: Path, text: str, synced: bool = True) -> None:
    """Write `text` beside `path`, fsync it and rename it: a reader sees the old file or the whole new one.

    Not `synced`, a power cut within half a minute may lose it; no end of the process does.
    """
    with atomic_writer(path, synced) as file:
        file.write(text.encode())


@contextmanager
def atomic_writer(path: Path, synced: bool = True) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place once all was written; where that fails nothing is changed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # Who else may read it is for the umask to say; that nobody else may write it is not.
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # Writing names no file, and the other calls one that is gone.
            error.filename = str(path)
        raise


def write_record(path: Path, record: BaseModel, synced: bool = True) -> None:
    """Write a record as indented JSON, atomically; see `write_atomic`."""
    write_atomic(path, record.model_dump_json(indent=2) + "\n", synced)


def read_record(path: Path, record: type[RecordT]) -> RecordT:
    """Return the record that `path` holds. Raises InputError with one sentence that names the file and the fault."""
    text = read_text(path, MAX_RESULT_BYTES)
    try:
        content = from_json(text)
    except ValueError:
        raise InputError(f"{path}: not JSON; the file is truncated or damaged.") from None
    version = content.get("schema_version") if isinstance(content, dict) else SCHEMA_VERSION
    if "schema_version" in record.model_fields and version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema_version {version!r} is not one this program knows ({SCHEMA_VERSION}).")
    try:
        # From the JSON text, so that arrays may become tuples.
        return record.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: not a {record.__name__}: {first_fault(error, 'the file')}.") from None


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes; raise OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def first_fault(error: ValidationError, whole: str) -> str:
    """Return where the first fault is and what it is; `whole` names what was validated, for a fault of all of it."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


class SampleWriter:
    """Append samples to `samples.jsonl`, one line and one write each: a kill loses no completed sample."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def append(self, sample: Sample) -> None:
        """Hand the sample's line to the operating system: from here on a killed process does not lose it."""
        line = (sample.model_dump_json() + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Bring everything to the disk."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)


def rewrite_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Replace `samples.jsonl` whole: what is known only at a run's end has been filled in."""
    write_atomic(path, "".join(sample.model_dump_json() + "\n" for sample in samples))


@contextmanager
def sample_writer(path: Path) -> Iterator[SampleWriter]:
    """Open a new `samples.jsonl`; an existing one is refused, so stale samples never mix with new ones."""
    writer = SampleWriter(path)
    try:
        yield writer
    finally:
        writer.close()


def read_samples(path: Path) -> list[Sample]:
    """Return every whole sample. A last line that a kill cut short is dropped: no prefix of a sample is a sample.

    Raises InputError, naming file and line, where another line is not a sample.
    """
    *lines, last = read_lines(path, MAX_SAMPLES_BYTES)
    return [*records_in(path, lines, Sample, "sample"), *last_record(last, Sample)]


def read_ticks(path: Path) -> Iterator[Tick]:
    """Return every whole line of `telemetry.jsonl`, one by one; a last line that was cut short is dropped.

    Raises InputError, naming file and line, where another line is not a tick.
    """
    *lines, last = read_lines(path, MAX_TELEMETRY_BYTES)
    yield from records_in(path, lines, Tick, "tick of telemetry")
    yield from last_record(last, Tick)


def read_lines(path: Path, most: int) -> list[bytes]:
    """Return the lines of a regular file of at most `most` bytes; the last is what no newline ended, often nothing.

    Raises InputError, which names the file and the fault.
    """
    return _read_bytes(path, most).split(b"\n")


def records_in(
    path: Path, lines: Iterable[bytes], record: type[RecordT], what: str, first: int = 1
) -> Iterator[RecordT]:
    """Yield the record in each line. Raises InputError, naming file and line, counted from `first`, for another."""
    for number, line in enumerate(lines, start=first):
        try:
            yield record.model_validate_json(_text(line))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"{path}, line {number}: not a {what}: {problem}.") from None


def last_record(line: bytes, record: type[RecordT]) -> Iterator[RecordT]:
    """Yield the record in a line that no newline ended, where it is whole."""
    with suppress(ValidationError):
        yield record.model_validate_json(_text(line))


def _open_distrustfully(path: str, flags: int) -> int:
    # A link could lead out of the run's directory, and a pipe would keep its reader waiting for ever.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_text(path: Path, most: int) -> str:
    """Return a regular file's text of at most `most` bytes. Raises InputError, which names the file and the fault."""
    return _text(_read_bytes(path, most))


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        with open(path, "rb", opener=_open_distrustfully) as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise InputError(f"{path}: not a regular file; refused.")
            # Room for all that may be read is taken at once: no more than there is to read, or memory may be too short.
            data = file.read(min(most, seen.st_size) + 1)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise InputError(f"{path}: a symbolic link; refused.") from None
        raise InputError(f"{path}: {error.strerror}.") from None
    if len(data) > most:
        raise InputError(f"{path}: larger than {most >> 20} MiB; refused.")
    return data


def _text(data: bytes) -> str:
    # Only a cut last line can end inside a character; anything else fails validation with its line number.
    return data.decode("utf-8", errors="replace")
