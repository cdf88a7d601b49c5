"""MLPerf Inference's requirements for submissions that this program can make: benchmarks, scenarios, limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from benchmark.errors import InputError
from benchmark.profiles import Limit, load_profile

Division = Literal["open", "closed"]
DIVISIONS: tuple[Division, ...] = ("open", "closed")
ROUND = "6.1"
MIN_DURATION_MS = 600_000
SUBMITTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One benchmark of one suite, with its results in a directory of its `name`."""

    name: str
    suite: Literal["datacenter", "edge"]
    samples: int
    """Samples of the whole dataset: a performance run draws from them, Offline and accuracy runs answer all."""
    profiles: dict[str, str]
    """The profile of each of its scenarios, in the order in which they are measured."""
    required: tuple[str, ...]
    one_of: tuple[str, ...] = ()

    @property
    def accuracy_limits(self) -> tuple[Limit, ...]:
        """The limits of accuracy, the same in each of its profiles."""
        return load_profile(next(iter(self.profiles.values()))).accuracy_limits


DATACENTER = Benchmark(
    "llama3.1-8b",
    "datacenter",
    13368,
    {"Offline": "mlperf-offline", "Server": "mlperf-server", "Interactive": "mlperf-interactive"},
    required=("Offline",),
    one_of=("Server", "Interactive"),
)
EDGE = Benchmark(
    "llama3.1-8b-edge",
    "edge",
    5000,
    {"SingleStream": "mlperf-edge-singlestream", "Offline": "mlperf-edge-offline"},
    required=("SingleStream", "Offline"),
)
BENCHMARKS = (DATACENTER, EDGE)
INTERACTIVE = "llama3_1-8b-interactive"
# LoadGen's name for a model -> the benchmark.
OF_MODEL = {"llama3_1-8b": DATACENTER, INTERACTIVE: DATACENTER, "llama3_1-8b-edge": EDGE}
# The P99 limits of TTFT and TPOT in milliseconds, which distinguish Interactive from Server.
LATENCIES_MS = {"Server": (2000, 100), "Interactive": (500, 30)}


def check_submitter(name: str, given_as: str) -> None:
    """Raise InputError for a name that cannot be a directory of the tree; `given_as`: which option it is."""
    if not SUBMITTER.fullmatch(name):
        raise InputError(f"{given_as}: {name!r} becomes a directory: use letters, digits, '.', '_' and '-'.")


def lacking(scenarios: set[str], benchmark: Benchmark, division: Division) -> list[tuple[str, ...]]:
    """Return the missing scenarios that the division requires; of several in one entry, one is enough."""
    if division == "open":
        return [] if scenarios else [tuple(benchmark.profiles)]
    absent: list[tuple[str, ...]] = [(name,) for name in benchmark.required if name not in scenarios]
    if benchmark.one_of and not scenarios & set(benchmark.one_of):
        absent.append(benchmark.one_of)
    return absent
