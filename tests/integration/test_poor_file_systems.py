"""Disks without locks, and a tar that says that files changed: results count all the same, or stay where they are."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Done, Playbooks, make_model_directory
from tests.integration.ssh_nodes import Cluster, loopback
from tests.no_flock import no_flock

# As tar does where a file changed as it was read, and as one does that cannot read the file that counts.
CHANGED = (
    'case $* in *-c*) {tar} "$@"; echo "tar: ./benchmark.log: file changed as we read it" >&2; exit 1 ;; esac; '
    'exec {tar} "$@"'
)
UNREADABLE = 'case $* in *-c*) {tar} --exclude=\'mlperf_datacenter_*\' "$@"; exit 1 ;; esac; exec {tar} "$@"'
CUT = 'case $* in *-c*) {tar} "$@"; truncate -s -200 "$2"; exit 2 ;; esac; exec {tar} "$@"'
# And as one that does not notice.
UNNOTICED = 'case $* in *-c*) {tar} "$@"; truncate -s -20 "$2"; exit 0 ;; esac; exec {tar} "$@"'
TARS = {"changed": CHANGED, "unreadable": UNREADABLE, "cut": CUT, "unnoticed": UNNOTICED}
STAYED = ("unreadable", "cut", "unnoticed")


def with_tar(directory: Path, script: str) -> str:
    """Return the line of sshd's configuration with which a node's tar is this script."""
    directory.mkdir(parents=True)
    program = directory / "tar"
    program.write_text(f"#!/bin/sh\n{script.format(tar=shutil.which('tar'))}\n")
    program.chmod(0o755)
    return f"SetEnv PATH={directory}:{os.environ['PATH']}\n"


@pytest.fixture(scope="module")
def ended(light_venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Playbooks, Done]]:
    """One run of all of them."""
    place = tmp_path_factory.mktemp("poor")
    nodes = Cluster(place)
    missing = no_flock(place, place, errno.ENOLCK)
    settings = " ".join(f"{name}={value}" for name, value in missing.items())
    nodes.add("jw2", loopback(12), config=f"SetEnv {settings}\n")
    for number, (name, script) in enumerate(TARS.items()):
        nodes.add(name, loopback(13 + number), config=with_tar(place / "bin" / name, script))
    make_model_directory(place / "model")
    playbooks = Playbooks(nodes, place, light_venv, place / "cp")
    (place / "cp").mkdir()
    try:
        yield playbooks, playbooks.run("benchmark", inventory=None, **missing)
    finally:
        nodes.stop()


def test_without_locks_the_run_goes_on_and_says_so_once(ended: tuple[Playbooks, Done]) -> None:
    _, done = ended
    assert done.row("jw2")["status"] == "complete", done.output
    assert " ".join(done.output.split()).count("is on a file system without file locks") == 1
    assert "No locks available" not in done.output


def test_a_whole_archive_counts_whatever_tar_said(ended: tuple[Playbooks, Done]) -> None:
    _, done = ended
    assert (done.row("changed")["status"], done.row("changed")["counted"]) == ("complete", True), done.output
    assert done.code == 2, "the others' files stayed where they are"


@pytest.mark.parametrize("node", STAYED)
def test_what_cannot_be_fetched_stays_and_the_message_says_where(ended: tuple[Playbooks, Done], node: str) -> None:
    playbooks, done = ended
    left = runs(playbooks, node) / done.run_dir.name / node
    assert list(left.glob("mlperf_datacenter_*.json"))
    reason = done.row(node)["reason"]
    assert f"Its files stay on {node} in {left}" in reason
    assert f"-e benchmark_resume={done.run_dir.name} fetches them" in reason
    if node == "unnoticed":
        assert "fetched.tar.gz: cannot be unpacked" in reason


def test_and_is_fetched_by_resuming_once_that_is_mended(ended: tuple[Playbooks, Done]) -> None:
    playbooks, done = ended
    run_id = done.run_dir.name
    measured = {node: (runs(playbooks, node) / run_id / node / "samples.jsonl").read_text() for node in STAYED}
    for node in STAYED:
        (playbooks.directory / "bin" / node / "tar").unlink()
    again = playbooks.run("benchmark", "-e", f"benchmark_resume={run_id}")
    assert again.code == 0, again.output
    assert [row["status"] for row in again.cluster["nodes"]] == ["complete"] * (len(TARS) + 1)
    assert again.cluster["counted"] == len(TARS) + 1
    for node in STAYED:
        assert again.row(node)["attempt"] == 1, "it was measured then"
        assert (again.run_dir / "nodes" / node / "samples.jsonl").read_text() == measured[node], "not measured again"
        assert not (runs(playbooks, node) / run_id).exists()


@pytest.fixture
def small(playbooks: Playbooks) -> Iterator[Path]:
    """The results directory on a disk of 36 KiB."""
    playbooks.results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=36k", "tmpfs", str(playbooks.results)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("small file systems take root to mount")
    yield playbooks.results
    subprocess.run(["umount", "-l", str(playbooks.results)], check=True)


def test_a_full_disk_of_the_controller_is_named(playbooks: Playbooks, small: Path) -> None:
    done = playbooks.run("benchmark", "--limit", "jw2")
    assert done.code != 0
    said = " ".join(done.output.split())
    assert f"{done.run_dir}/" in said
    assert "on the controller cannot be written: No space left on device. Make room" in said, done.output
    assert " on the node" not in said, "the node's disk has room"
    no_summary, go_on = done.output.splitlines()[-2:]
    assert no_summary == f"No summary was made, for the reason above. The run is in {done.run_dir}"
    subprocess.run(["mount", "-o", "remount,size=10M", str(small)], check=True)
    command = shlex.split(go_on.partition(": ")[2])
    again = subprocess.run(
        command, cwd=playbooks.checkout, env=playbooks.environment(), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout
    assert done.cluster["counted"] == 1


def runs(playbooks: Playbooks, node: str) -> Path:
    return playbooks.directory / "nodes" / node / "runs"
