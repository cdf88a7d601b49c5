"""What happened on a node over time, in equal bins: enough for a chart, in a thousandth of the samples' memory.

Bins are 1, 2, 4, ... ms wide, so that the bins of nodes that measured for different times can be merged to one width.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.columns import ABSENT, Columns, Floats, Ints, doubles
from benchmark.metrics import NS_PER_S
from benchmark.records import Tick

LEAST_WIDTH_NS = 1_000_000
MOST_BINS = 120
# Fields of telemetry.jsonl that are kept.
OF_GPUS = ("sm_clock_mhz", "power_w", "temperature_c")
OF_HOST = ("cpu_percent",)


def _zeros(count: int) -> array[float]:
    return array("d", bytes(8 * count))


@dataclass(frozen=True)
class Envelope:
    """Lowest, mean and highest value in each bin. `weight`: how many values the mean is of; 0: none."""

    low: array[float]
    high: array[float]
    total: array[float]
    weight: array[float]

    @classmethod
    def empty(cls, bins: int) -> Envelope:
        """Return bins without values."""
        return cls(array("d", [math.inf]) * bins, array("d", [-math.inf]) * bins, _zeros(bins), _zeros(bins))

    def see(self, number: int, value: float, weight: float = 1.0) -> None:
        """Add a value to a bin."""
        self.low[number] = min(self.low[number], value)
        self.high[number] = max(self.high[number], value)
        self.total[number] += value * weight
        self.weight[number] += weight

    def mean(self, number: int) -> float | None:
        """Return a bin's mean; None without values."""
        return self.total[number] / self.weight[number] if self.weight[number] else None

    def merged(self, factor: int) -> Envelope:
        """Return the same values in bins that are `factor` times as wide."""
        return Envelope(
            array("d", (min(each) for each in _chunks(self.low, factor))),
            array("d", (max(each) for each in _chunks(self.high, factor))),
            array("d", (math.fsum(each) for each in _chunks(self.total, factor))),
            array("d", (math.fsum(each) for each in _chunks(self.weight, factor))),
        )


@dataclass(frozen=True)
class TimeSeries:
    """One node's measuring window, from 0 to `end_ns` of its clock.

    `tokens`: output tokens in each bin: the first of an answer when it came, the rest spread evenly until its last.
    `in_flight`: queries between issue and completion; failed ones have no end and are left out.
    `watched`: telemetry of the host and its GPUs, a value for every tick (of every GPU).
    """

    width_ns: int
    end_ns: int
    tokens: array[float]
    in_flight: Envelope
    watched: dict[str, Envelope] = field(default_factory=dict)

    @property
    def bins(self) -> int:
        """The number of bins; the last may extend beyond the window's end."""
        return len(self.tokens)

    def tokens_per_s(self, number: int) -> float:
        """Return output tokens per second in a bin, over its part within the window."""
        inside_ns = min(self.width_ns, self.end_ns - number * self.width_ns)
        return self.tokens[number] / inside_ns * NS_PER_S

    def merged(self, width_ns: int) -> TimeSeries:
        """Return the same series in wider bins; `width_ns` is a multiple of this width."""
        factor = width_ns // self.width_ns
        if factor == 1:
            return self
        return TimeSeries(
            width_ns=width_ns,
            end_ns=self.end_ns,
            tokens=array("d", (math.fsum(each) for each in _chunks(self.tokens, factor))),
            in_flight=self.in_flight.merged(factor),
            watched={name: envelope.merged(factor) for name, envelope in self.watched.items()},
        )


def time_series_of(samples: Columns, ticks: Iterable[Tick] = ()) -> TimeSeries | None:
    """Return the series of the completed samples and of the ticks; None if no query completed."""
    done = samples.completed_ns > 0
    if not done.any():
        return None
    end_ns = int(samples.completed_ns.max())
    width_ns = LEAST_WIDTH_NS
    while -(-end_ns // width_ns) > MOST_BINS:
        width_ns *= 2
    bins = -(-end_ns // width_ns)
    return TimeSeries(
        width_ns=width_ns,
        end_ns=end_ns,
        tokens=_tokens(samples, width_ns, bins),
        in_flight=_in_flight(samples.issued_ns[done], samples.completed_ns[done], width_ns, bins),
        watched=_watched(ticks, width_ns, bins),
    )


def _tokens(samples: Columns, width_ns: int, bins: int) -> array[float]:
    """Return the tokens in each bin. A rate that begins in a bin adds to part of it, and to all of later bins."""
    reported = (samples.completed_ns > 0) & (samples.first_token_ns != ABSENT) & (samples.output_tokens > 0)
    first_ns, last_ns = samples.first_token_ns[reported], samples.completed_ns[reported]
    tokens = samples.output_tokens[reported]
    at_once = first_ns == last_ns
    # Tokens that come all at once are in the last one's bin, without a rate.
    each = np.where(at_once, 0.0, (tokens - 1) / np.where(at_once, 1, last_ns - first_ns))
    first, last = first_ns // width_ns, last_ns // width_ns
    # One answer after another, so that sums are always computed in the same order.
    came = _sums(
        [np.where(at_once, np.minimum(last, bins - 1), first), first, last],
        [
            np.where(at_once, tokens, 1),
            each * ((first + 1) * width_ns - first_ns),
            -each * ((last + 1) * width_ns - last_ns),
        ],
        bins + 1,
    )
    rate = _sums([first + 1, last + 1], [each, -each], bins + 2)
    now = 0.0
    for number in range(bins):
        now += rate[number]
        # Adding and subtracting many rates leaves a rounding error.
        came[number] = max(0.0, came[number] + now * width_ns)
    return came[:bins]


def _in_flight(issued_ns: Ints, completed_ns: Ints, width_ns: int, bins: int) -> Envelope:
    """Return how many queries were in flight, weighted by time: between changes of that number, or of the bin."""
    edges = np.arange(1, bins, dtype=np.int64) * width_ns
    moments = np.sort(np.concatenate(([0], issued_ns, completed_ns, edges)))
    since_ns = moments[:-1][moments[1:] > moments[:-1]]
    lasted_ns = np.diff(since_ns, append=moments[-1]).astype(np.float64)
    begun = np.searchsorted(np.sort(issued_ns), since_ns, "right")
    level = (begun - np.searchsorted(np.sort(completed_ns), since_ns, "right")).astype(np.float64)
    number = since_ns // width_ns
    low, high = np.full(bins, np.inf), np.full(bins, -np.inf)
    np.minimum.at(low, number, level)
    np.maximum.at(high, number, level)
    return Envelope(
        doubles(low),
        doubles(high),
        _sums([number], [level * lasted_ns], bins),
        _sums([number], [lasted_ns], bins),
    )


def _sums(bins: Sequence[Ints], amounts: Sequence[Ints | Floats], count: int) -> array[float]:
    """Return the sums of amounts in `count` bins, each amount with its bin, in the order of the samples."""
    weights = np.stack(amounts, 1).ravel().astype(np.float64)
    sums: Floats = np.bincount(np.stack(bins, 1).ravel(), weights, count).astype(np.float64)
    return doubles(sums)


def _watched(ticks: Iterable[Tick], width_ns: int, bins: int) -> dict[str, Envelope]:
    seen: dict[str, Envelope] = {}
    for tick in ticks:
        number = tick.t_ns // width_ns
        if not 0 <= number < bins:
            continue
        for source, names in ((tick, OF_HOST), *((gpu, OF_GPUS) for gpu in tick.gpus)):
            for name in names:
                value = getattr(source, name)
                if value is not None:
                    if name not in seen:
                        seen[name] = Envelope.empty(bins)
                    seen[name].see(number, value)
    return seen


def _chunks(values: array[float], size: int) -> Iterable[array[float]]:
    return (values[start : start + size] for start in range(0, len(values), size))
