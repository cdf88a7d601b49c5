"""Summarise the ticks in the measuring window. Means are over time: a tick counts for the time around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from benchmark.metrics import NS_PER_S, per_joule
from benchmark.records import Count, Energy, GpuProcess, GpuTelemetry, GpuTick, Metrics, Record, Telemetry, Text, Tick
from benchmark.records.environment import throttle_reasons

Number = TypeVar("Number", int, float)
# In a shorter time the counter's own steps (a tenth of a second on an H100) would show.
MIN_IDLE_NS = 500_000_000
# Not slowdowns: an idle GPU, and limits that a user has set.
NO_THROTTLING = ("gpu_idle", "applications_clocks_setting", "display_clock_setting")


class GpuReport(Record):
    """The sampler's final report on a GPU."""

    index: Count
    xid: tuple[Count, ...] = ()
    foreign_processes: tuple[GpuProcess, ...] = ()
    ecc_corrected: Count | None = None
    ecc_uncorrected: Count | None = None
    pcie_generation: Count | None = None
    pcie_width: Count | None = None


class SamplerReport(Record):
    """The sampler's final report, with its own CPU time and how long it watched."""

    cpu_s: float = 0
    span_s: float = 0
    gpus: tuple[GpuReport, ...] = ()
    notes: tuple[Text, ...] = ()


def sum_up(ticks: Sequence[Tick], window_ns: int, reported: SamplerReport) -> Telemetry | None:
    """Return the summary of the ticks in the window, without energy; None if there are fewer than two."""
    within = [tick for tick in ticks if 0 <= tick.t_ns <= window_ns]
    if len(within) < 2 or within[-1].t_ns <= within[0].t_ns:
        return None
    weights = _weights([tick.t_ns for tick in within], window_ns)
    indexes = sorted({gpu.index for tick in within for gpu in tick.gpus})
    known = {gpu.index: gpu for gpu in reported.gpus}
    cpu = [tick.cpu_percent for tick in within]
    return Telemetry(
        ticks=len(within),
        interval_ms=(within[-1].t_ns - within[0].t_ns) / (len(within) - 1) / 1e6,
        cost_percent=100 * reported.cpu_s / reported.span_s if reported.span_s else 0,
        cpu_percent=_mean(cpu, weights),
        cpu_percent_max=_most(cpu),
        memory_mib_max=_most(tick.memory_mib for tick in within),
        gpus=tuple(_gpu(index, within, weights, ticks, window_ns, known.get(index)) for index in indexes),
        note="; ".join(reported.notes)[:4000],
    )


def _gpu(
    index: int,
    within: Sequence[Tick],
    weights: Sequence[float],
    ticks: Sequence[Tick],
    window_ns: int,
    reported: GpuReport | None,
) -> GpuTelemetry:
    seen = [next((gpu for gpu in tick.gpus if gpu.index == index), GpuTick(index=index)) for tick in within]
    busy = [gpu.sm_clock_mhz if gpu.utilisation_percent else None for gpu in seen]
    powers = [gpu.power_w for gpu in seen]
    return GpuTelemetry(
        index=index,
        utilisation_percent=_mean([gpu.utilisation_percent for gpu in seen], weights),
        memory_mib_max=_most(gpu.memory_mib for gpu in seen),
        sm_clock_mhz=_mean(busy, weights),
        sm_clock_mhz_min=min((clock for clock in busy if clock is not None), default=None),
        power_w=_mean(powers, weights),
        power_w_max=_most(powers),
        temperature_c_max=_most(gpu.temperature_c for gpu in seen),
        throttled=_throttled([gpu.throttle_reasons for gpu in seen], weights),
        joules=joules(ticks, index, 0, window_ns),
        ecc_corrected=reported.ecc_corrected if reported else None,
        ecc_uncorrected=reported.ecc_uncorrected if reported else None,
        xid=reported.xid if reported else (),
        foreign_processes=reported.foreign_processes if reported else (),
        pcie_generation=reported.pcie_generation if reported else None,
        pcie_width=reported.pcie_width if reported else None,
    )


def _weights(times: Sequence[int], window_ns: int) -> list[float]:
    """Return the time around each tick: from halfway to the one before it to halfway to the one after."""
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(times)), float(window_ns)]
    return [after - before for before, after in pairwise(edges)]


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    reported = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    whole = sum(weight for _, weight in reported)
    return sum(value * weight for value, weight in reported) / whole if whole else None


def _most(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def _throttled(masks: Sequence[int | None], weights: Sequence[float]) -> dict[str, float]:
    reasons = [None if mask is None else throttle_reasons(mask) for mask in masks]
    names = {name for reported in reasons for name in reported or ()} - set(NO_THROTTLING)
    return {
        name: _mean([None if reported is None else float(name in reported) for reported in reasons], weights) or 0.0
        for name in sorted(names)
    }


def energy_of(ticks: Sequence[Tick], window_ns: int, metrics: Metrics | None) -> Energy | None:
    """Return the joules of all GPUs together; None if one of them has no counter, as the sum would be too low."""
    indexes = sorted({gpu.index for tick in ticks for gpu in tick.gpus})
    each = [joules(ticks, index, 0, window_ns) for index in indexes]
    if not each or window_ns <= 0 or None in each:
        return None
    used = math.fsum(one for one in each if one is not None)
    idle = [idle_w(ticks, index) for index in indexes]
    return Energy(
        joules=used,
        window_s=window_ns / NS_PER_S,
        idle_w=None if None in idle else math.fsum(one for one in idle if one is not None),
        **per_joule(used, [metrics] if metrics else []),
    )


def idle_w(ticks: Sequence[Tick], index: int) -> float | None:
    """Return a GPU's mean power before the window: from its counter, or for a short time from its power readings."""
    before = [(tick.t_ns, gpu) for tick in ticks if tick.t_ns < 0 for gpu in tick.gpus if gpu.index == index]
    counted = [at_ns for at_ns, gpu in before if gpu.energy_mj is not None]
    if counted and -counted[0] >= MIN_IDLE_NS:
        used = joules(ticks, index, counted[0], 0)
        return None if used is None else used * NS_PER_S / -counted[0]
    powers = [gpu.power_w for _, gpu in before if gpu.power_w is not None]
    return math.fsum(powers) / len(powers) if powers else None


def joules(ticks: Sequence[Tick], index: int, from_ns: int, to_ns: int) -> float | None:
    """Return a GPU's energy between two times, from its counter; None without readings around both."""
    readings = [
        (tick.t_ns, gpu.energy_mj)
        for tick in ticks
        for gpu in tick.gpus
        if gpu.index == index and gpu.energy_mj is not None
    ]
    ends = [_at(readings, at_ns) for at_ns in (from_ns, to_ns)]
    if ends[0] is None or ends[1] is None or ends[1] < ends[0]:
        return None
    return (ends[1] - ends[0]) / 1000


def _at(readings: Sequence[tuple[int, int]], at_ns: int) -> float | None:
    """Return the counter at a time, interpolated between the readings around it."""
    for (before_ns, before), (after_ns, after) in pairwise(readings):
        if before_ns <= at_ns <= after_ns and after_ns > before_ns:
            return before + (after - before) * (at_ns - before_ns) / (after_ns - before_ns)
    return None
