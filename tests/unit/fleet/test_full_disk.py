"""A node's disk with next to no room: the run is refused, or ends, at once, and the reason says so."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fleet.by_hand import MEASURES, Fleet

# It takes what there is, as a log or samples do, and says as Python does where there is no more.
FILLS = """head -c 200000 /dev/zero > samples.jsonl || exit 4"""
# So long would be waited where nobody sees that it has ended.
LIMIT_S = 600


class Disk:
    """Mounts file systems of some kilobytes."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, directory: Path, options: str) -> None:
        directory.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("small file systems take root to mount")
        self._mounted.append(directory)

    def close(self) -> None:
        for directory in self._mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.close()


SIZES = [f"size={kib}k" for kib in (4, 8, 12, 16, 20, 24, 30, 36, 40, 44, 48, 52, 64)]
INODES = [f"size=128k,nr_inodes={count}" for count in range(2, 16, 2)]


def test_a_disk_that_is_full_ends_the_run_at_once(fleet: Fleet, disk: Disk) -> None:
    for number, options in enumerate([*SIZES, *INODES]):
        disk.mount(fleet.directory / "work" / f"n{number}", options)
        fleet.add(f"n{number}", FILLS, benchmark_timeout_s=LIMIT_S, benchmark_sync_timeout_s=LIMIT_S)
    began = time.monotonic()
    outcome = fleet.measure()
    assert time.monotonic() - began < LIMIT_S / 4
    assert set(outcome.failures) == set(fleet.nodes)
    wrong = {name: why for name, why in outcome.failures.items() if "No space left on device" not in why}
    assert not wrong
    assert not fleet.messages, "no connection was lost"


def test_a_start_that_fails_leaves_nothing_on_the_node(fleet: Fleet, disk: Disk) -> None:
    disk.mount(fleet.directory / "work" / "jw2", "size=8k")
    fleet.add("jw2")
    assert "Make room, or set benchmark_work_dir to a larger disk" in fleet.measure().failures["jw2"]
    assert not fleet.there("jw2").exists()


def test_an_end_is_known_without_pid_and_exit_code(fleet: Fleet) -> None:
    # As on a disk that copies on write: what was prepared cannot be written in place.
    lost = "rm -f pid limit; mkdir exit_code; exit 4"
    fleet.add("jw2", lost, order={"wait_s": None}, benchmark_timeout_s=LIMIT_S)
    began = time.monotonic()
    outcome = fleet.measure()
    assert time.monotonic() - began < LIMIT_S / 4
    assert "is gone without an exit code" in outcome.failures["jw2"]


def test_a_start_that_cannot_be_written_is_reported(fleet: Fleet) -> None:
    fleet.add("jw2", MEASURES.replace("mv ready.tmp ready", "mkdir go.tmp; mv ready.tmp ready"))
    began = time.monotonic()
    outcome = fleet.measure()
    assert time.monotonic() - began < 30, "not the time that is waited for a start"
    assert "converse.sh failed on the node" in outcome.failures["jw2"]
    assert "go.tmp" in outcome.failures["jw2"]


@pytest.mark.parametrize("said", ["Disk quota exceeded", "Read-only file system", "No space left on device"])
def test_why_a_disk_cannot_be_written_is_said_in_words(said: str, fleet: Fleet) -> None:
    programs = fleet.directory / "programs"
    programs.mkdir()
    # In another language where nobody asked for this one.
    translated = f'[ "$LC_ALL" = C ] && echo "mkdir: {said}" >&2 || echo "mkdir: Schreibfehler" >&2; exit 1'
    (programs / "mkdir").write_text(f"#!/bin/sh\n{translated}\n")
    (programs / "mkdir").chmod(0o755)
    words = ["env", f"PATH={programs}:/usr/bin:/bin", "LC_ALL=de_DE.UTF-8", "LANGUAGE=de", "/bin/sh", "-c"]
    fleet.add("jw2", call=lambda line: [*words, line])
    reason = fleet.measure().failures["jw2"]
    assert reason.startswith(f"{said}: ")
    assert "benchmark_work_dir" in reason


def test_a_full_disk_of_the_controller_is_not_the_node_s(fleet: Fleet, disk: Disk) -> None:
    # There is room for the order, what the node said when it was ready, and the start, but for no samples.
    disk.mount(fleet.run_dir, "size=24k")
    fleet.add("jw2", MEASURES.replace("echo measured >", "head -c 100000 /dev/urandom >"))
    outcome = fleet.measure()
    place = fleet.run_dir / "nodes" / "jw2"
    assert outcome.failures["jw2"].startswith(f"{place} on the controller cannot be written: No space left on device. ")
    assert "set benchmark_results_dir to a larger disk" in outcome.failures["jw2"]
    assert "Its files stay on jw2 in " in outcome.failures["jw2"]
    assert (fleet.there("jw2") / "samples.jsonl").stat().st_size == 100_000
