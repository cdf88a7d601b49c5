"""What happened when on a node, in equal bins of time: what a chart needs, in a thousandth of the samples' memory.

Bins are 1, 2, 4, ... ms wide, so that the bins of nodes that measured for different times can be brought to one width.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmark.metrics import NS_PER_S
from benchmark.records import Sample, Tick

LEAST_WIDTH_NS = 1_000_000
MOST_BINS = 120
# What is kept of telemetry.jsonl, by the fields' names.
OF_GPUS = ("sm_clock_mhz", "power_w", "temperature_c")
OF_HOST = ("cpu_percent",)


def _zeros(count: int) -> array[float]:
    return array("d", bytes(8 * count))


@dataclass(frozen=True)
class Envelope:
    """Lowest, mean and highest value in each bin. `weight` is what the mean rests on; 0: nothing was seen."""

    low: array[float]
    high: array[float]
    total: array[float]
    weight: array[float]

    @classmethod
    def empty(cls, bins: int) -> Envelope:
        """Return one in which nothing was seen yet."""
        return cls(array("d", [math.inf]) * bins, array("d", [-math.inf]) * bins, _zeros(bins), _zeros(bins))

    def see(self, number: int, value: float, weight: float = 1.0) -> None:
        """Take a value into a bin."""
        self.low[number] = min(self.low[number], value)
        self.high[number] = max(self.high[number], value)
        self.total[number] += value * weight
        self.weight[number] += weight

    def mean(self, number: int) -> float | None:
        """Return a bin's mean; None where nothing was seen."""
        return self.total[number] / self.weight[number] if self.weight[number] else None

    def merged(self, factor: int) -> Envelope:
        """Return the same in bins that are `factor` times as wide."""
        return Envelope(
            array("d", (min(each) for each in _chunks(self.low, factor))),
            array("d", (max(each) for each in _chunks(self.high, factor))),
            array("d", (math.fsum(each) for each in _chunks(self.total, factor))),
            array("d", (math.fsum(each) for each in _chunks(self.weight, factor))),
        )


@dataclass(frozen=True)
class Course:
    """One node's measuring window, from 0 to `end_ns` of its clock.

    `tokens`: output tokens that came in each bin; the first of an answer when it came, the rest evenly until its last.
    `in_flight`: queries between issue and completion; failed ones have no end and are left out.
    `watched`: what was seen of the host and its GPUs, every tick (of every GPU) a value.
    """

    width_ns: int
    end_ns: int
    tokens: array[float]
    in_flight: Envelope
    watched: dict[str, Envelope] = field(default_factory=dict)

    @property
    def bins(self) -> int:
        """How many bins there are; the last may reach beyond the window's end."""
        return len(self.tokens)

    def tokens_per_s(self, number: int) -> float:
        """Return output tokens per second in a bin, over the part of it that lies in the window."""
        inside_ns = min(self.width_ns, self.end_ns - number * self.width_ns)
        return self.tokens[number] / inside_ns * NS_PER_S

    def merged(self, width_ns: int) -> Course:
        """Return the same in wider bins; `width_ns` is a multiple of this width."""
        factor = width_ns // self.width_ns
        if factor == 1:
            return self
        return Course(
            width_ns=width_ns,
            end_ns=self.end_ns,
            tokens=array("d", (math.fsum(each) for each in _chunks(self.tokens, factor))),
            in_flight=self.in_flight.merged(factor),
            watched={name: envelope.merged(factor) for name, envelope in self.watched.items()},
        )


def course_of(samples: Sequence[Sample], ticks: Iterable[Tick] = ()) -> Course | None:
    """Return the course of the completed samples and the ticks beside them; None where no query completed."""
    done = [s for s in samples if s.completed_ns is not None and s.completed_ns > 0]
    if not done:
        return None
    end_ns = max(s.completed_ns or 0 for s in done)
    width_ns = LEAST_WIDTH_NS
    while -(-end_ns // width_ns) > MOST_BINS:
        width_ns *= 2
    bins = -(-end_ns // width_ns)
    return Course(
        width_ns=width_ns,
        end_ns=end_ns,
        tokens=_tokens(done, width_ns, bins),
        in_flight=_in_flight(done, width_ns, bins),
        watched=_watched(ticks, width_ns, bins),
    )


def _tokens(done: Sequence[Sample], width_ns: int, bins: int) -> array[float]:
    """Return the tokens in each bin. A rate that begins in a bin adds in part to it, in full to later ones."""
    came, rate = _zeros(bins + 1), _zeros(bins + 2)

    def change(at_ns: int, tokens_per_ns: float) -> None:
        number = at_ns // width_ns
        came[number] += tokens_per_ns * ((number + 1) * width_ns - at_ns)
        rate[number + 1] += tokens_per_ns

    for sample in done:
        first_ns, last_ns = sample.first_token_ns, sample.completed_ns or 0
        if first_ns is None or not sample.output_tokens:
            continue
        if first_ns == last_ns:
            came[min(last_ns // width_ns, bins - 1)] += sample.output_tokens
            continue
        came[first_ns // width_ns] += 1
        each = (sample.output_tokens - 1) / (last_ns - first_ns)
        change(first_ns, each)
        change(last_ns, -each)
    now = 0.0
    for number in range(bins):
        now += rate[number]
        # What is left of many rates that were added and taken away again is not quite nothing.
        came[number] = max(0.0, came[number] + now * width_ns)
    return came[:bins]


def _in_flight(done: Sequence[Sample], width_ns: int, bins: int) -> Envelope:
    events = sorted([(s.issued_ns, 1) for s in done] + [(s.completed_ns or 0, -1) for s in done])
    seen = Envelope.empty(bins)
    level, since_ns = 0, 0
    for at_ns, change in events:
        while since_ns < at_ns:
            number = since_ns // width_ns
            until_ns = min(at_ns, (number + 1) * width_ns)
            seen.see(number, level, until_ns - since_ns)
            since_ns = until_ns
        level += change
    return seen


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
