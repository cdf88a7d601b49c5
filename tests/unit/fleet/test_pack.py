"""What pack.sh sends, whatever tar's exit code says of it, and how a node is left clean."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.fleet.programs import program
from benchmark.fleet.unpack import unpack

RESULT = "mlperf_datacenter_jw2_20260101T000000Z.json"
# The end of what really happened: a whole archive, and an exit code that is not 0.
GREW = '/bin/tar "$@"; echo "tar: ./benchmark.log: file changed as we read it" >&2; exit 1'
WARNED = '/bin/tar "$@"; echo "tar: Child returned status 2" >&2; exit 2'
PIPE = '/bin/tar "$@"; exit 141'
VANISHED = '/bin/tar "$@"; echo "tar: ./x: File removed before we read it" >&2; exit 1'
# And archives that are not whole: cut off; of a tar that was killed, whose gzip ended well; without a file; none.
CUT = '/bin/tar "$@"; truncate -s -20 "$2"; exit 0'
KILLED = '/bin/tar -c . | head -c 2048 | gzip > "$2"; echo "tar: killed" >&2; exit 0'
LACKS = '/bin/tar --exclude=samples.jsonl "$@"; echo "tar: ./samples.jsonl: Cannot open: Permission denied" >&2; exit 2'
NONE = 'echo "tar: no such luck" >&2; exit 2'


MARK = "6d61726b"


@dataclass
class Packed:
    """What pack.sh printed."""

    files: list[str] = field(default_factory=list)
    said: str = ""
    size: int = 0


def pack(directory: Path, tar: str) -> Packed:
    run = directory / "run" / "jw2"
    run.mkdir(parents=True)
    for name in (RESULT, "samples.jsonl", "benchmark.log", "order.json"):
        (run / name).write_text(f"{name}\n")
    (run / "x").mkdir()
    (directory / "bin").mkdir()
    (directory / "bin/tar").write_text(f"#!/bin/sh\n{tar}\n")
    (directory / "bin/tar").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", program("pack"), "pack", str(run.parent), "jw2", MARK],
        env={**os.environ, "PATH": f"{directory}/bin:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    packed, rest = Packed(), done.stdout
    while rest:
        line, _, rest = rest.partition(b"\n")
        mark, word, what = [*line.decode().split(" ", 2), ""][:3]
        assert mark == MARK
        if word == "lies":
            packed.files.append(what)
        elif word == "said":
            packed.said = what.strip()
        else:
            assert word == "archive"
            packed.size = int(what)
            (directory / "fetched.tar.gz").write_bytes(rest[: packed.size])
            assert rest[packed.size :] == b"\n"
            break
    packed.files.remove("order.json")
    assert sorted(packed.files) == ["benchmark.log", RESULT, "samples.jsonl"]
    return packed


@pytest.mark.parametrize("tar", [GREW, WARNED, PIPE, VANISHED], ids=["grew", "warned", "pipe", "vanished"])
def test_a_whole_archive_counts_whatever_the_exit_code(tar: str, tmp_path: Path) -> None:
    packed = pack(tmp_path, tar)
    names = unpack(tmp_path / "fetched.tar.gz", tmp_path, expected=packed.files)
    assert sorted(names) == ["benchmark.log", RESULT, "samples.jsonl"]
    assert (tmp_path / "samples.jsonl").read_text() == "samples.jsonl\n"


@pytest.mark.parametrize(
    ("tar", "why", "said"),
    [
        (CUT, "cannot be unpacked", ""),
        (KILLED, "cannot be unpacked", "tar: killed"),
        (LACKS, "lacks samples.jsonl", "tar: ./samples.jsonl: Cannot open: Permission denied"),
    ],
    ids=["cut", "killed", "lacks"],
)
def test_one_that_is_not_whole_is_refused_and_leaves_nothing(tar: str, why: str, said: str, tmp_path: Path) -> None:
    packed = pack(tmp_path, tar)
    with pytest.raises(InputError, match=why):
        unpack(tmp_path / "fetched.tar.gz", tmp_path, expected=packed.files)
    assert packed.said == said
    assert not (tmp_path / RESULT).exists()


def test_none_at_all_is_reported_with_what_tar_said(tmp_path: Path) -> None:
    packed = pack(tmp_path, NONE)
    assert (packed.size, packed.said) == (0, "tar: no such luck")


@pytest.mark.parametrize("rm", ["exec /bin/rm", "echo 'Device or resource busy' >&2; exit 1 #"])
def test_a_directory_that_cannot_be_removed_passes_for_no_run(rm: str, tmp_path: Path) -> None:
    run = tmp_path / "run" / "jw2"
    run.mkdir(parents=True)
    (run / ".nfs0001").touch()
    (tmp_path / "rm").write_text(f'#!/bin/sh\n{rm} "$@"\n')
    (tmp_path / "rm").chmod(0o755)
    words = ["sh", "-c", program("clean"), "clean", str(run.parent), "jw2", ""]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(words, env=environment, capture_output=True, check=True)
    assert not run.exists()
