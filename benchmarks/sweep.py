"""Compare a sweep with theory, on an engine of known capacity: the simulated one with a given number of servers.

A closed queue without pauses gives min(n in flight, servers) / service time. Exits non-zero if the knee is more than
5 % from the number of servers, or a rate more than 2 % from theory.

    python3 -m benchmarks.sweep [--servers 12] [--service-s 0.5] [--rounds 16] [--rates]

With --rates the ladder has rates (LoadGen's Server), and the highest rate is compared with servers / service time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark.cluster.aggregate import aggregate
from benchmark.files import write_record
from benchmark.node.run import RunRequest, run
from benchmark.records import Curve, RunRecord
from benchmark.resolve import resolve
from benchmark.rundir import NODES, RUN_FILE
from benchmark.settings import ResolvedSettings
from benchmarks.table import Table

KNEE, RATE = 0.05, 0.02
TOKENS = 16


def main() -> int:
    """Run one node's sweep and print it next to theory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--servers", type=int, default=12)
    parser.add_argument("--service-s", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=16, help="queries per query in flight, or per server")
    parser.add_argument("--rates", action="store_true")
    given = parser.parse_args()
    capacity = given.servers / given.service_s
    with tempfile.TemporaryDirectory() as directory:
        curve = measured(Path(directory), given)
    shown = Table({"load": 8, "theory": 10, "measured": 10, "off %": 8}, vars(given))
    worst = 0.0
    for point in curve.points:
        # Shares refer to the rate of a burst, at whose end the system runs empty: only the highest rate is judged.
        theory = None if given.rates else min(point.step, given.servers) / given.service_s
        off = (point.qps or 0) / theory - 1 if theory else None
        worst = max(worst, abs(off or 0))
        percent = None if off is None else 100 * off
        shown.add({"load": point.step, "theory": theory, "measured": point.qps, "off %": percent})
    most = max(point.qps or 0 for point in curve.points)
    found, wanted = (most, capacity) if given.rates else (curve.knee or 0.0, float(given.servers))
    shown.say(curve.ended)
    shown.say(f"knee: {found:.3f}, theory: {wanted:g} ({found / wanted - 1:+.2%})", knee=found, wanted=wanted)
    return int(abs(found / wanted - 1) > KNEE or worst > RATE)


def measured(directory: Path, given: argparse.Namespace) -> Curve:
    """Return the node's curve."""
    ladder = [2**power for power in range(12) if 2**power < 4 * given.servers]
    queries = given.rounds * given.servers
    closed: dict[str, Any] = {
        "scenario_options": {"min_query_count": given.rounds},
        "sweep": {"concurrency": ladder},
    }
    server = {"scenario": "Server", "min_duration_ms": 0, "min_query_count": queries, "burst_query_count": queries}
    rates: dict[str, Any] = {
        "scenario": "loadgen",
        "scenario_options": server,
        "sweep": {"rate": [0.1, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3]},
    }
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu"})
    # The first token takes a tenth of the service time.
    ttft_ms = 100 * given.service_s
    engine = {"ttft_ms": ttft_ms, "tpot_ms": 9 * ttft_ms / (TOKENS - 1), "slots": given.servers}
    changes: dict[str, Any] = {"name": "sweep", "samples": None, "limits": [], "engine_options": engine}
    profile = {**base.profile.model_dump(), **changes, **(rates if given.rates else closed)}
    resolved = ResolvedSettings.model_validate({"settings": base.settings, "profile": profile})
    place = directory / NODES / "node"
    place.mkdir(parents=True)
    record = RunRecord(run_id="r", created_at="now", command="", versions={}, nodes={"node": resolved})
    write_record(directory / RUN_FILE, record)
    run(RunRequest("r", "node", resolved, place))
    result = aggregate(directory)
    if result.sweep is None:
        raise SystemExit(result.nodes[0].reason)
    return next(curve for curve in result.sweep.curves if curve.kind == "node")


if __name__ == "__main__":
    sys.exit(main())
