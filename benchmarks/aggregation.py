"""Measure wall time, processor time and peak memory of `python3 -m benchmark aggregate` on a large run.

The run is written first, with the real records and metrics. The samples of some nodes are drawn independently (Poisson
arrivals, lognormal times, 128 tokens with their ids, as MLPerf's Server produces them); the other nodes link to these
files, so that they need not take 15 GB of disk.

    python3 -m benchmarks.aggregation [--nodes 1000] [--samples 13368] [--distinct 8]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark.files import write_record
from benchmark.records import NodeResult, Sample
from benchmark.rundir import NODES
from tests.unit.building import MS, asked, make_run, result_of, write_node

RATE_PER_S = 20.0
TOKENS = 128


def samples_of(count: int, seed: int) -> list[Sample]:
    """Return the samples of one node: queries with random arrivals and durations."""
    draw = random.Random(seed)  # noqa: S311 # no secret
    made, now_ms = [], 0.0
    for index in range(count):
        now_ms += draw.expovariate(RATE_PER_S) * 1000
        scheduled = int(now_ms * MS)
        issued = scheduled + int(draw.expovariate(5) * MS)
        first = issued + int(draw.lognormvariate(4, 0.4) * MS)
        made.append(
            Sample(
                index=index,
                prompt_id=f"cnn-{draw.randrange(13368)}",
                scheduled_ns=scheduled,
                issued_ns=issued,
                first_token_ns=first,
                completed_ns=first + int(draw.lognormvariate(7.5, 0.2) * MS),
                input_tokens=draw.randrange(200, 2000),
                output_tokens=TOKENS,
                token_ids=tuple(draw.randrange(128_000) for _ in range(TOKENS)),
            )
        )
    return made


def write_run(directory: Path, nodes: int, samples: int, distinct: int) -> None:
    """Write a run of `nodes` nodes; the first `distinct` have their own samples."""
    resolved = asked(samples)
    names = [f"node{number + 1:04d}" for number in range(nodes)]
    make_run(directory, dict.fromkeys(names, resolved))
    originals: list[tuple[Path, NodeResult]] = []
    for number, name in enumerate(names):
        if number < distinct:
            drawn = samples_of(samples, seed=number)
            result = result_of(name, resolved, drawn)
            originals.append((write_node(directory, result, drawn), result))
            continue
        source, result = originals[number % len(originals)]
        place = directory / NODES / name
        write_record(
            place / f"mlperf_datacenter_{name}_20250102T030405Z.json", result.model_copy(update={"node": name})
        )
        os.link(source / "samples.jsonl", place / "samples.jsonl")


def main() -> None:
    """Write the run, aggregate it, and print a line of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=13368)
    parser.add_argument("--distinct", type=int, default=8)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the run to this directory and keep it")
    arguments = parser.parse_args()
    place = arguments.keep or Path(tempfile.mkdtemp(prefix="aggregation"))
    try:
        if not (place / "run.json").exists():
            write_run(place, arguments.nodes, arguments.samples, min(arguments.distinct, arguments.nodes))
        print(measured(place, arguments.nodes, arguments.samples), flush=True)
    finally:
        if arguments.keep is None:
            shutil.rmtree(place)


def measured(run_dir: Path, nodes: int, samples: int) -> str:
    """Aggregate the run and return its cost as a line of the table."""
    from benchmarks.farm import memory_mib

    with tempfile.TemporaryFile("w+") as output:
        began, before = time.perf_counter(), os.times()
        aggregating = subprocess.Popen(
            [sys.executable, "-m", "benchmark", "aggregate", str(run_dir)], stdout=output, stderr=subprocess.STDOUT
        )
        peak_mib = 0.0
        while aggregating.poll() is None:
            peak_mib = max(peak_mib, memory_mib(aggregating.pid))
            time.sleep(0.2)
        wall_s, after = time.perf_counter() - began, os.times()
        if aggregating.returncode not in (0, 1):
            output.seek(0)
            raise SystemExit(output.read())
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    per_s = nodes * samples / cpu_s
    return (
        f"| {nodes} | {samples:,} | {os.cpu_count()} | {wall_s:.1f} s | {cpu_s:.1f} s | {peak_mib:.0f} MiB "
        f"| {per_s:,.0f} samples per second and core |"
    )


if __name__ == "__main__":
    main()
