"""Queries arrive by a schedule, whether earlier ones have been answered or not: an open loop.

At the node's target rate, evenly spaced, at random or in bursts; or at a trace's times. The time of a query counts from
when it was due. LoadGen's Server has its own Poisson schedule and verdict; this is for other arrivals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.errors import InputError
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload, now_ns
from benchmark.node.options import check
from benchmark.node.together import sleep_until
from benchmark.schedule_options import Options


class Scenario(interfaces.Scenario):
    """The open loop."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for unknown options."""
        self.options = check(Options, options, "scenario_options of the scenario schedule")

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue each query when it is due, and return when all have ended; for accuracy, each prompt once."""
        times = self._times(workload, conditions)
        conditions.begins(times[-1] if times else 0.0, len(times))
        queries = [workload.query(index) for index in range(len(times))]
        began_ns = now_ns()
        for query, at_s in zip(queries, times, strict=True):
            due_ns = began_ns + round(at_s * 1e9)
            sleep_until(due_ns)
            issuer.check()
            issuer.issue(query, due_ns)
        for query in queries:
            issuer.wait(query)
        # At one query per second: nodes with other rates have the same arrivals. Rounded, as the last digit depends on
        # libm.
        unit = times if self.options.arrivals == "trace" else islice(distances(self.options, 1), len(times))
        return Outcome(arrivals_sha256=canonical_sha256([round(at_s, 6) for at_s in unit]))

    def _times(self, workload: Workload, conditions: Conditions) -> list[float]:
        """Return when each query is due, in seconds since the first one."""
        prompts = len(workload.prompts)
        count = prompts if conditions.purpose == "accuracy" else workload.samples or prompts
        if self.options.arrivals != "trace":
            return list(islice(distances(self.options, conditions.target_qps), count))
        due = [prompt.due_s for prompt in workload.prompts[:count]]
        if count > prompts or None in due:
            raise InputError(
                f"The profile asks for {count} queries at a trace's own times, but the dataset has "
                f"{sum(one is not None for one in due)} of these: leave samples out, or use the dataset trace."
            )
        return [at_s * self.options.time_scale for at_s in due if at_s is not None]


def distances(options: Options, rate: float) -> Iterator[float]:
    """Yield when queries are due at `rate` queries per second, without end, the first one at 0.

    Two nodes with the same seed have the same intervals, each in proportion to its own rate.
    """
    draw = random.Random(options.seed)  # noqa: S311 # must be reproducible
    at = 0.0
    while True:
        yield at / rate
        if options.arrivals == "constant":
            at += 1.0
        elif options.arrivals == "poisson":
            at -= math.log1p(-draw.random())
        else:
            at += draw.gammavariate(options.burstiness, 1 / options.burstiness)
