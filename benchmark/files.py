"""Read and write result files: no partial files, no lost samples, and validation of everything read."""

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

# The largest files that a node may send back; larger ones are refused by name.
MAX_RESULT_BYTES = 16 * 2**20
MAX_SAMPLES_BYTES = 2 * 2**30
MAX_TELEMETRY_BYTES = 512 * 2**20
MAX_LOG_BYTES = 64 * 2**20
# Block size for hashing a file.
HASH_CHUNK = 8 * 2**20


def write_atomic(path: Path, text: str, synced: bool = True) -> None:
    """Write `text` beside `path`, fsync it and rename it: a reader sees the old file or the complete new one.

    Without `synced`, a power cut within half a minute may lose it, but a kill of the process does not.
    """
    with atomic_writer(path, synced) as file:
        file.write(text.encode())


@contextmanager
def atomic_writer(path: Path, synced: bool = True) -> Iterator[BinaryIO]:
    """Open a file beside `path` that replaces it once everything is written; on failure nothing is changed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # The umask decides who else may read it; nobody else may write it.
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
            # Errors of writing name no file, and those of renaming a temporary one.
            error.filename = str(path)
        raise


def write_record(path: Path, record: BaseModel, synced: bool = True) -> None:
    """Write a record as indented JSON, atomically (see `write_atomic`)."""
    write_atomic(path, record.model_dump_json(indent=2) + "\n", synced)


def read_record(path: Path, record: type[RecordT]) -> RecordT:
    """Return the record in `path`. Raises InputError with one sentence that names the file and the fault."""
    text = read_text(path, MAX_RESULT_BYTES)
    try:
        content = from_json(text)
    except ValueError:
        raise InputError(f"{path}: not JSON; the file is truncated or damaged.") from None
    version = content.get("schema_version") if isinstance(content, dict) else SCHEMA_VERSION
    if "schema_version" in record.model_fields and version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema_version {version!r} is unknown to this program ({SCHEMA_VERSION}).")
    try:
        # From the JSON text, so that arrays may become tuples.
        return record.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: not a {record.__name__}: {first_fault(error, 'the file')}.") from None


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def first_fault(error: ValidationError, whole: str) -> str:
    """Return where the first fault is and what it is; `whole`: the name of the validated object as a whole."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


class SampleWriter:
    """Append samples to `samples.jsonl`, one line and one write each: a kill loses no completed sample."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def append(self, sample: Sample) -> None:
        """Write the sample's line to the operating system, so that a killed process does not lose it."""
        line = (sample.model_dump_json() + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Sync everything to the disk."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)


def rewrite_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Rewrite `samples.jsonl` with the values that are only known at a run's end."""
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
    """Return every complete sample. A last line cut short by a kill is dropped: no prefix of a sample is a sample.

    Raises InputError, naming file and line, if another line is not a sample.
    """
    *lines, last = read_lines(path, MAX_SAMPLES_BYTES)
    return [*records_in(path, lines, Sample, "sample"), *last_record(last, Sample)]


def read_ticks(path: Path) -> Iterator[Tick]:
    """Yield every complete line of `telemetry.jsonl`; a last line that was cut short is dropped.

    Raises InputError, naming file and line, if another line is not a tick.
    """
    *lines, last = read_lines(path, MAX_TELEMETRY_BYTES)
    yield from records_in(path, lines, Tick, "tick of telemetry")
    yield from last_record(last, Tick)


def read_lines(path: Path, most: int) -> list[bytes]:
    """Return the lines of a regular file of at most `most` bytes; the last is the rest without a newline, often empty.

    Raises InputError, which names the file and the fault.
    """
    return _read_bytes(path, most).split(b"\n")


def records_in(
    path: Path, lines: Iterable[bytes], record: type[RecordT], what: str, first: int = 1
) -> Iterator[RecordT]:
    """Yield the record in each line. Raises InputError, naming file and line (from `first`), if it is not one."""
    for number, line in enumerate(lines, start=first):
        try:
            yield record.model_validate_json(_text(line))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"{path}, line {number}: not a {what}: {problem}.") from None


def last_record(line: bytes, record: type[RecordT]) -> Iterator[RecordT]:
    """Yield the record in a line without a newline, if it is complete."""
    with suppress(ValidationError):
        yield record.model_validate_json(_text(line))


def _open_distrustfully(path: str, flags: int) -> int:
    # A link could lead out of the run's directory, and a pipe would block its reader forever.
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
            # Memory for all that may be read is allocated at once, so ask for no more than the file has.
            data = file.read(min(most, seen.st_size) + 1)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise InputError(f"{path}: a symbolic link; refused.") from None
        raise InputError(f"{path}: {error.strerror}.") from None
    if len(data) > most:
        raise InputError(f"{path}: larger than {most >> 20} MiB; refused.")
    return data


def _text(data: bytes) -> str:
    # Only a truncated last line can end inside a character; anything else fails validation with its line number.
    return data.decode("utf-8", errors="replace")
