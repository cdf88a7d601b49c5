import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import files
from benchmark.errors import InputError
from benchmark.files import read_record, read_samples, sample_writer, write_atomic, write_record
from benchmark.records import Failure, NodeResult, Sample
from benchmark.unwritable import on_controller
from tests.unit.building import asked, closed_loop, result_of, sample_lists


def write_samples(path: Path, samples: list[Sample]) -> bytes:
    with sample_writer(path) as writer:
        for one in samples:
            writer.append(one)
    return path.read_bytes()


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o000, 0o644)])
def test_files_are_as_private_as_the_umask_asks(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_disk_that_is_full_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "run.json").write_text("as it was")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_atomic(tmp_path / "run.json", "x")
    assert raised.value.filename == str(tmp_path / "run.json")
    assert on_controller(raised.value, "elsewhere") == (
        f"{tmp_path}/run.json on the controller cannot be written: No space left on device. Make room, or set "
        "benchmark_results_dir to a larger disk (df -h shows space, df -i files)."
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]


@given(sample_lists(6), st.data())
def test_truncated_at_any_byte_all_whole_samples_are_read(samples: list[Sample], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "samples.jsonl"
        whole = write_samples(path, samples)
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        lengths = [len(one.model_dump_json().encode()) for one in samples]
        # A sample is whole with its last brace, its newline there or not.
        ends = [sum(lengths[: i + 1]) + i for i in range(len(samples))]
        assert read_samples(path) == samples[: sum(end <= cut for end in ends)]


def test_every_cut_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    samples = closed_loop([1000, 1100])
    whole = write_samples(path, samples)
    first = len(samples[0].model_dump_json())
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(read_samples(path)) == (cut >= first) + (cut >= len(whole) - 1), cut


def test_samples_are_never_appended_to_an_earlier_run(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.jsonl", closed_loop([1000]))
    with pytest.raises(FileExistsError), sample_writer(tmp_path / "samples.jsonl"):
        pass


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b"\xff\xfe", b'{"index": 0}', b""])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "samples.jsonl"
    good = write_samples(path, closed_loop([1000]))
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(InputError, match=r"samples\.jsonl, line 2: not a sample"):
        read_samples(path)


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "failure.json"
    record = Failure(node="jw2", stage="hf_cache", reason="full")
    write_record(path, record)
    assert read_record(path, Failure) == record
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half of it \ud800")
    assert read_record(path, Failure) == record
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON; the file is truncated or damaged"),
        (b'{"node": "jw2"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"node": "jw2"}', "not a Failure: stage: Field required"),
        (b"[]", "not a Failure: the file"),
        (b'{"node": "jw2", "stage": "x", "reason": "y", "more": 1}', "not a Failure: more"),
    ],
)
def test_what_is_not_the_record_is_named_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "failure.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_record(path, Failure)
    assert str(caught.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(("content", "version"), [('{"schema_version": 2, "node": "jw2"}', "2"), ("{}", "None")])
def test_an_unknown_schema_version_is_refused(tmp_path: Path, content: str, version: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"schema_version {version} is unknown to this program"):
        read_record(path, NodeResult)


def test_a_result_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_record(path, result_of("jw2", asked(1), closed_loop([1000])))
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="not JSON"):
            read_record(path, NodeResult)


def test_an_oversized_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "failure.json"
    with path.open("wb") as file:
        file.truncate(files.MAX_RESULT_BYTES + 1)  # sparse: takes no room
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_record(path, Failure)


def test_links_pipes_directories_and_absent_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    said = {
        "link": "a symbolic link",
        "pipe": "not a regular file",
        "directory": "Is a directory",
        "none": "No such file",
    }
    for name, words in said.items():
        with pytest.raises(InputError, match=words):
            read_record(tmp_path / name, Failure)


def test_reading_takes_no_more_memory_than_there_is_to_read(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("a line\n")
    script = """
import resource, sys
from pathlib import Path
from benchmark.files import MAX_SAMPLES_BYTES, read_text
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
print(read_text(Path(sys.argv[1]), MAX_SAMPLES_BYTES))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "short")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["a", "line"]
