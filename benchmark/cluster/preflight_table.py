"""A table of what preflight found on each node, also shown if there is no problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.cluster.names import natural, some
from benchmark.cluster.preflight import Probe, gpus, unchecked
from benchmark.text.columns import clean, columns, left

HEADS = ("Node", "GPUs", "Driver", "Python", "Free for the environment", "Free for the model", "Clock")
# Up to this many nodes have a row each; with more, like nodes share one.
EACH = 16
UNKNOWN = "?"


@dataclass(frozen=True)
class Found:
    """What was found on a node: free disk in GB (1e9 bytes), seconds that its clock is ahead; None: not seen."""

    gpus: str
    driver: str
    python: str
    env_gb: float | None
    cache_gb: float | None
    clock_s: float | None
    unchecked: tuple[str, ...] = ()
    """Fields of nvidia-smi that may show a fault of a GPU but that the driver there does not know."""


def found(probe: Probe, device: str, clock_s: float | None) -> Found:
    """Return a node's row from its probe; `device`: cuda, or cpu, for which GPUs are ignored."""
    there = gpus(probe)
    # nvidia-smi reports no size for memory that CPU and GPU share.
    counts = Counter(g["name"] + (f", {g['memory_mib']} MiB" if g["memory_mib"].isdecimal() else "") for g in there)
    names = "; ".join(f"{count} x {name}" for name, count in counts.items())
    return Found(
        gpus=names or ("none" if device == "cuda" else "not used"),
        driver=", ".join(sorted({gpu["driver"] for gpu in there})) or "-",
        python=probe.values.get("python") or UNKNOWN,
        env_gb=_free_gb(probe, "env"),
        cache_gb=_free_gb(probe, "cache"),
        clock_s=clock_s,
        unchecked=unchecked(probe) if device == "cuda" else (),
    )


def table(nodes: Mapping[str, Found]) -> list[str]:
    """Return the table's lines; many nodes share rows by GPUs, driver and Python."""
    if not nodes:
        return []
    rows = [HEADS, *(_row(names, [nodes[name] for name in names]) for names in _groups(nodes))]
    widths = [max(columns(clean(row[place])) for row in rows) for place in range(len(HEADS))]
    lines = ["  ".join(left(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lacking: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(nodes, key=natural):
        if nodes[name].unchecked:
            lacking.setdefault(nodes[name].unchecked, []).append(name)
    return lines + [
        f"Not checked on {some(names)}, since nvidia-smi there does not know it: {', '.join(fields)}."
        for fields, names in lacking.items()
    ]


def _groups(nodes: Mapping[str, Found]) -> list[list[str]]:
    names = sorted(nodes, key=natural)
    if len(names) <= EACH:
        return [[name] for name in names]
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        alike.setdefault((nodes[name].gpus, nodes[name].driver, nodes[name].python), []).append(name)
    return list(alike.values())


def _row(names: Sequence[str], each: Sequence[Found]) -> tuple[str, ...]:
    first = each[0]
    who = names[0] if len(names) == 1 else f"{len(names)}: {some(names)}"
    free = (_least([one.env_gb for one in each]), _least([one.cache_gb for one in each]))
    return (who, first.gpus, first.driver, first.python, *free, _clock([one.clock_s for one in each]))


def _least(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    return f"{'' if len(values) == 1 else 'from '}{min(known):,.0f} GB"


def _clock(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    furthest = max(known, key=abs)
    # Only to the second: the answer took part of one to arrive.
    return "same" if abs(furthest) < 1 else f"{furthest:+,.0f} s"


def _free_gb(probe: Probe, key: str) -> float | None:
    kilobytes = probe.values.get(f"{key}_disk", "").rpartition(" ")[2]
    return int(kilobytes) * 1024 / 1e9 if kilobytes.isdigit() else None
