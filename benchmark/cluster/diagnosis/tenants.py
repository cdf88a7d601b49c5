"""Cause: another process uses the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_seen


def co_tenant(suspect: Suspect) -> Iterator[str]:
    """Evidence: another process was on a GPU before the run.

    A program that is on a GPU of most like nodes too (a monitor, a display server) does not count.
    """
    peers = [{process.name for gpu in gpus_seen(peer) for process in gpu.processes} for peer in suspect.peers]
    for gpu in gpus_seen(suspect.node):
        for process in gpu.processes:
            if process.kind != "compute":
                continue  # a display server: it holds memory but computes next to nothing
            if process.name and 2 * sum(process.name in names for names in peers) > len(peers):
                continue
            who = process.name or "a process whose name is not readable"
            of = f" of {process.user}" if process.user else ""
            memory = f", {process.memory_mib} MiB of its memory" if process.memory_mib else ""
            yield f"On GPU {gpu.index} before the run: {who}{of} (pid {process.pid}){memory}."
