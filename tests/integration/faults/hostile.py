"""Programs that make a node lie: they stand before the system's in its PATH, as on a node that somebody else owns."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.integration.ssh_nodes import SESSION

# Changes the run's files just before they are packed.
BEFORE_PACKING = '#!/bin/sh\n%s\nexec /bin/tar "$@"\n'
# Puts an archive of its own where the run's is expected: `tar -czf <archive> ...`.
OWN_ARCHIVE = """#!/usr/bin/python3
import gzip, io, os, shutil, sys, tarfile
with tarfile.open(sys.argv[2], "w:gz") as tar:
    def add(name, data=b"evil", **fields):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for field, value in fields.items():
            setattr(member, field, value)
        tar.addfile(member, io.BytesIO(data))
%s
"""
ESCAPES = """
    for name in ("../../../evil", "/tmp/../%(outside)s/evil", "../samples.jsonl", "nodes/../../evil", "~/evil"):
        add(name)
    add("samples.jsonl", b"", type=tarfile.SYMTYPE, linkname="%(outside)s/evil")
    add("benchmark.log", b"", type=tarfile.LNKTYPE, linkname="../../run.json")
    add("user.conf", b"", type=tarfile.FIFOTYPE)
    add("{{ lookup('pipe', 'touch %(outside)s/evil') }}")
    add("failure.json", b"{}")
    add("fetched.tar.gz")
"""
BOMB = """
    member = tarfile.TarInfo("samples.jsonl")
    member.size = 1 << 40
    tar.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
    for _ in range(64):
        tar.fileobj.write(bytes(1 << 20))
"""


def program(directory: Path, name: str, text: str) -> str:
    """Write a program; return the line of sshd_config that puts it before the system's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{SESSION} PATH={directory}:/usr/local/bin:/usr/bin:/bin\n"


def edit_result(directory: Path, command: str) -> str:
    """Change the node's result by a shell command, to which it is "$f", before it is packed."""
    return program(directory, "tar", BEFORE_PACKING % f"for f in mlperf_datacenter_*.json; do {command}; done")


def wrong_clock(directory: Path, hours: int) -> str:
    """Set the clock that the node's programs see ahead: `date`, and Python's."""
    line = program(directory, "date", f'#!/bin/sh\nexec /bin/date -d "{hours} hours" "$@"\n')
    (directory / "sitecustomize.py").write_text(
        f"import time\n_time, _ns = time.time, time.time_ns\n"
        f"time.time = lambda: _time() + {hours * 3600}\ntime.time_ns = lambda: _ns() + {hours * 3600 * 10**9}\n"
    )
    return line.rstrip() + f" PYTHONPATH={directory}\n"
