"""Who killed a run: the kernel for want of memory, or somebody else, as far as the counts that a node left can say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Written by benchmark/fleet/scripts/start.sh where the run was ended by SIGKILL.
OOM_KILLS = "oom_kills"
# Some words; what a node writes there is not to fill the controller.
MOST_BYTES = 1000
# Above any memory: what cgroup v1 says where there is no limit.
NO_LIMIT = 1 << 60
REMEDY = (
    "Free memory on the node, raise the limit of its cgroup (systemd: MemoryMax), or take less: a smaller "
    "benchmark_model, another benchmark_dtype, fewer benchmark_replicas."
)
UNKNOWN = "The benchmark was killed (SIGKILL): perhaps the node ran out of memory; see dmesg and benchmark.log there."


@dataclass(frozen=True)
class Kills:
    """How many processes the kernel killed for want of memory while the run went on; None: it does not say.

    `cgroup`: of those in the run's cgroup (cgroups v1 and v2 count on behalf of the one that was killed, whosever limit
    was reached). `limit`: the bytes that the cgroup may take.
    """

    cgroup: int | None = None
    node: int | None = None
    limit: int | None = None


def why_killed(directory: Path) -> str:
    """Return why a run was killed whose files lie in `directory`, with what to do."""
    kills = read_kills(directory / OOM_KILLS)
    if kills.cgroup:
        limit = f": its cgroup may take {kills.limit / 2**20:.0f} MiB" if kills.limit else ""
        return f"The benchmark was killed by the kernel's OOM killer, because memory ran out{limit}. {REMEDY}"
    if kills.cgroup is None and kills.node:
        return (
            f"The benchmark was killed (SIGKILL), and the kernel's OOM killer was at work on the node meanwhile "
            f"({kills.node} killed): memory ran out. {REMEDY}"
        )
    if kills.cgroup == 0 or kills.node == 0:
        return (
            "The benchmark was killed (SIGKILL), and not by the kernel's OOM killer: a user did (kill -9), or a "
            "program that watches over memory or time (systemd-oomd, earlyoom, a batch system)."
        )
    return UNKNOWN


def read_kills(path: Path) -> Kills:
    """Read what the node counted; whatever is no count is as if it was not said."""
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
