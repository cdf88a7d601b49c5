"""Cause: the run had too little CPU time: too few cores, a quota, a hypervisor, or other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, environment_of, telemetry_of, usual
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import CpuTime

# Runnable threads without a core, or CPU time that the hypervisor stole, in percent of the window; 200: two at a time.
MORE_WAITING_PERCENT = 5.0
# Percent of the window in which a quota stopped everything.
MORE_HELD_PERCENT = 2.0
# Percent of all cores: above this there is no room left ...
BUSY_PERCENT = 90.0
# ... and this much busier than like nodes.
MORE_BUSY_PERCENT = 20.0


def cpu_starvation(suspect: Suspect) -> Iterator[str]:
    """Evidence: fewer CPUs, a quota, steal, threads that waited for a core, a busy host, a power-saving governor.

    Each counts only if like nodes are better off.
    """
    yield from _cores(suspect)
    yield from _quota(suspect)
    yield from _stolen(suspect)
    yield from _waiting(suspect)
    yield from _busy(suspect)
    yield from _governor(suspect)


def _cores(suspect: Suspect) -> Iterator[str]:
    def cores(node: LoadedNode) -> float | None:
        seen = environment_of(node)
        return seen.cpu_count if seen else None

    own, others = cores(suspect.node), usual(suspect.peers, cores)
    if own is not None and others is not None and own < others:
        yield f"The run may use {own:.0f} CPUs, {others:.0f} on like nodes."


def _time(node: LoadedNode) -> CpuTime | None:
    return node.result.cpu if node.result else None


def _percents(suspect: Suspect, of: Callable[[CpuTime], float | None]) -> tuple[float, float] | None:
    """Return the seconds as a share of the window, on the node and typically on like nodes; None: unknown."""

    def percent(node: LoadedNode) -> float | None:
        time = _time(node)
        seconds = of(time) if time else None
        return None if time is None or seconds is None or not time.wall_s else 100 * seconds / time.wall_s

    own, others = percent(suspect.node), usual(suspect.peers, percent)
    return None if own is None or others is None else (own, others)


def _quota(suspect: Suspect) -> Iterator[str]:
    held, time = _percents(suspect, lambda time: time.held_s), _time(suspect.node)
    if held and held[0] >= held[1] + MORE_HELD_PERCENT:
        own, others = held
        quota = f" of {time.quota_cpus:g} CPUs" if time and time.quota_cpus is not None else ""
        yield f"A CPU quota{quota} throttled the run for {own:.0f} % of the time, like nodes for {others:.0f} %."
        return

    def allowed(node: LoadedNode) -> float | None:
        return None if (one := _time(node)) is None else one.quota_cpus

    if time and time.quota_cpus is not None and all(allowed(peer) is None for peer in suspect.peers):
        yield f"The run has a CPU quota of {time.quota_cpus:g} CPUs; like nodes have none."


def _much_more(percents: tuple[float, float] | None) -> tuple[float, float] | None:
    return percents if percents and percents[0] >= max(2 * percents[1], percents[1] + MORE_WAITING_PERCENT) else None


def _stolen(suspect: Suspect) -> Iterator[str]:
    if more := _much_more(_percents(suspect, lambda time: time.stolen_s)):
        own, others = more
        yield f"Its hypervisor took {own:.0f} % of one CPU's time from it (steal), {others:.0f} % from like nodes."


def _waiting(suspect: Suspect) -> Iterator[str]:
    if more := _much_more(_percents(suspect, lambda time: time.waited_s)):
        own, others = more
        yield f"Threads of the run waited for a CPU for {own:.0f} % of the time, on like nodes for {others:.0f} %."


def _busy(suspect: Suspect) -> Iterator[str]:
    def busy(node: LoadedNode) -> float | None:
        watched = telemetry_of(node)
        return watched.cpu_percent if watched else None

    own, others = busy(suspect.node), usual(suspect.peers, busy)
    if own is not None and others is not None and own >= BUSY_PERCENT and own >= others + MORE_BUSY_PERCENT:
        yield f"The host's CPUs were {own:.0f} % busy, {others:.0f} % on like nodes."


def _governor(suspect: Suspect) -> Iterator[str]:
    seen = environment_of(suspect.node)
    if seen is None or seen.cpu_governor != "powersave":
        return
    theirs = [peer_seen.cpu_governor for peer in suspect.peers if (peer_seen := environment_of(peer))]
    if theirs.count("performance") * 2 > len(theirs):
        yield "The CPU's governor is powersave, performance on like nodes."
