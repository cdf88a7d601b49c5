import io
import tarfile
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.fleet import unpack as fetched


def archive(path: Path, *members: tuple[str, bytes | None, bytes]) -> Path:
    """Write an archive of (name, content, type) members."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def test_known_files_come_out(tmp_path: Path) -> None:
    made = archive(
        tmp_path / "a.tgz",
        ("./samples.jsonl", b"{}\n", tarfile.REGTYPE),
        ("./mlperf_datacenter_jw2_20260101T000000Z.json", b"{}", tarfile.REGTYPE),
        ("./endpoint.log", b"Uvicorn running", tarfile.REGTYPE),
        ("./oom_kills", b"node 0 1", tarfile.REGTYPE),
    )
    names = fetched.unpack(made, tmp_path)
    assert names == ["samples.jsonl", "mlperf_datacenter_jw2_20260101T000000Z.json", "endpoint.log", "oom_kills"]
    assert (tmp_path / "samples.jsonl").read_bytes() == b"{}\n"


def test_the_files_of_further_repeats_come_out(tmp_path: Path) -> None:
    names = ["repeat2_samples.jsonl", "repeat12_telemetry.jsonl", "repeat2_mlperf_log_detail.txt"]
    made = archive(tmp_path / "a.tgz", *((name, b"{}", tarfile.REGTYPE) for name in names))
    assert fetched.unpack(made, tmp_path) == names


def test_the_files_of_an_audit_come_out(tmp_path: Path) -> None:
    names = ["mlperf_log_accuracy.json", "mlperf_log_detail.txt", "user.conf", "samples.jsonl", "audit.config"]
    made = archive(tmp_path / "a.tgz", *((f"TEST06_{name}", b"{}", tarfile.REGTYPE) for name in names))
    assert fetched.unpack(made, tmp_path) == [f"TEST06_{name}" for name in names]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../escaped.jsonl", tarfile.REGTYPE),
        ("/tmp/samples.jsonl", tarfile.REGTYPE),
        ("order.json", tarfile.REGTYPE),
        ("repeat2_ready", tarfile.REGTYPE),
        ("repeat2_ready.json", tarfile.REGTYPE),
        ("failure.json", tarfile.REGTYPE),
        ("aggregated_datacenter_results.json", tarfile.REGTYPE),
        ("samples.jsonl", tarfile.SYMTYPE),
        ("samples.jsonl", tarfile.LNKTYPE),
        ("samples.jsonl", tarfile.DIRTYPE),
        ("samples.jsonl", tarfile.FIFOTYPE),
        ("sub/samples.jsonl", tarfile.REGTYPE),
    ],
)
def test_nothing_else_comes_out(tmp_path: Path, name: str, kind: bytes) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    assert fetched.unpack(archive(tmp_path / "a.tgz", (name, b"x", kind)), inside) == []
    assert list(inside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "in"]


def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tgz", ("samples.jsonl", b"x" * 10000, tarfile.REGTYPE))
    made.write_bytes(made.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot be unpacked"):
        fetched.unpack(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_a_spoilt_archive_is_not_blamed_on_the_controller(tmp_path: Path) -> None:
    """What gzip says of one is a kind of OSError, which has no number."""
    made = archive(tmp_path / "a.tgz", ("samples.jsonl", b"x" * 10000, tarfile.REGTYPE))
    whole = made.read_bytes()
    checksum = slice(-8, -4)
    for spoilt in (b"head is called\n" + whole, whole[: checksum.start] + bytes(4) + whole[checksum.stop :]):
        made.write_bytes(spoilt)
        with pytest.raises(InputError, match=r"cannot be unpacked \((Not a gzipped file|CRC check failed)"):
            fetched.unpack(made, tmp_path)


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "MAX_FILES", 3)
    names = [f"repeat{number}_samples.jsonl" for number in (2, 3, 4, 5)]
    fits = archive(tmp_path / "a.tgz", *((name, b"{}", tarfile.REGTYPE) for name in names[:3]))
    assert fetched.unpack(fits, tmp_path) == names[:3]
    more = archive(tmp_path / "b.tgz", *((name, b"{}", tarfile.REGTYPE) for name in names))
    with pytest.raises(InputError, match="or 3 files"):
        fetched.unpack(more, tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tgz", ("samples.jsonl", b"x" * 1001, tarfile.REGTYPE))
    with pytest.raises(InputError, match="more than"):
        fetched.unpack(made, tmp_path, 1000)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("124", "stopped after benchmark_timeout_s = 60 s"),
        ("137", "killed"),
        ("rebooted", "The node was restarted while the benchmark ran"),
        ("vanished", "without an exit code"),
        ("3", "the log's last words"),
        ("1", "the log's last words"),
    ],
)
def test_an_end_is_reported_in_a_sentence(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "benchmark.log").write_text("something\nthe log's last words\n\n")
    assert said in (fetched.why_failed(code, tmp_path, "benchmark_timeout_s = 60 s") or "")


def test_a_complete_run_has_no_such_sentence(tmp_path: Path) -> None:
    assert fetched.why_failed("0", tmp_path, "benchmark_timeout_s = 60 s") is None
    (tmp_path / "mlperf_datacenter_jw2_1.json").touch()
    assert fetched.why_failed("1", tmp_path, "benchmark_timeout_s = 60 s") is None


def test_a_python_that_does_not_start_is_no_complete_run(tmp_path: Path) -> None:
    """It ends with 1 too, where a file of the login shell exports PYTHONHOME, say."""
    (tmp_path / "benchmark.log").write_text("ModuleNotFoundError: No module named 'encodings'\n\nCurrent thread\n")
    said = fetched.why_failed("1", tmp_path, "benchmark_timeout_s = 60 s") or ""
    assert said.startswith("The benchmark ended with exit code 1 and left no result; the end of its log: ModuleNot")


def test_without_any_word_the_exit_code_is_reported(tmp_path: Path) -> None:
    assert "exit code 4" in (fetched.why_failed("4", tmp_path, "benchmark_timeout_s = 60 s") or "")
