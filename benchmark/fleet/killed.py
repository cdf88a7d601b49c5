"""Tell whether the kernel's OOM killer killed a run, or something else, from the counts in the node's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Written by benchmark/fleet/scripts/start.sh if SIGKILL ended the run.
OOM_KILLS = "oom_kills"
# It has a few words; a node must not fill the controller's memory.
MOST_BYTES = 1000
# cgroup v1 reports a value above this if there is no limit.
NO_LIMIT = 1 << 60
REMEDY = (
    "Free memory on the node, raise the limit of its cgroup (systemd: MemoryMax), or use less: a smaller "
    "benchmark_model, another benchmark_dtype, fewer benchmark_replicas."
)
UNKNOWN = "The benchmark was killed (SIGKILL): perhaps the node ran out of memory; see dmesg and benchmark.log there."


@dataclass(frozen=True)
class Kills:
    """How many processes the OOM killer killed during the run; None: unknown.

    `cgroup`: in the run's cgroup (cgroups v1 and v2 count for the cgroup of the killed process, whichever limit was
    reached). `limit`: the memory limit of the cgroup in bytes.
    """

    cgroup: int | None = None
    node: int | None = None
    limit: int | None = None


def why_killed(directory: Path) -> str:
    """Return why the run with its files in `directory` was killed, and what to do."""
    kills = read_kills(directory / OOM_KILLS)
    if kills.cgroup:
        limit = f": its cgroup may take {kills.limit / 2**20:.0f} MiB" if kills.limit else ""
        return f"The benchmark was killed by the kernel's OOM killer, because memory ran out{limit}. {REMEDY}"
    if kills.cgroup is None and kills.node:
        return (
            f"The benchmark was killed (SIGKILL), and the kernel's OOM killer killed processes on the node meanwhile "
            f"({kills.node}): memory ran out. {REMEDY}"
        )
    if kills.cgroup == 0 or kills.node == 0:
        return (
            "The benchmark was killed (SIGKILL), and not by the kernel's OOM killer: a user did (kill -9), or a "
            "program that limits memory or time (systemd-oomd, earlyoom, a batch system)."
        )
    return UNKNOWN


def read_kills(path: Path) -> Kills:
    """Read the node's counts; anything that is not a count is ignored."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file.read(MOST_BYTES).splitlines()]
    except OSError:
        return Kills()
    found = {name: [int(word) for word in words if word.isdecimal()] for name, *words in filter(None, lines)}
    limits = [limit for limit in found.get("limit", []) if limit < NO_LIMIT]
    return Kills(_risen(found.get("cgroup")), _risen(found.get("node")), min(limits, default=None))


def _risen(counts: list[int] | None) -> int | None:
    return max(0, counts[1] - counts[0]) if counts and len(counts) == 2 else None
