"""Measure two GPUs of a machine as replicas, as a cluster of two nodes and as one copy of a model: table and ratios.

    python3 -m benchmarks.several_gpus --model DIRECTORY --vllm-dir DIRECTORY --parts one,replicas,cluster --json a.json
    python3 -m benchmarks.several_gpus ... --gpus 1 --parts vllm --json b.json          # beside `one`, on the other GPU
    python3 -m benchmarks.several_gpus --parts '' --earlier a.json b.json               # the ratios of both

Each part runs in its own process, which is ended after --part-s. Loads are workload B: Offline, all queries at once,
and LoadGen's Server at a rate, with limits of 2000 ms for TTFT and 100 ms for TPOT (P99).

with the playbook (`benchmark.yml`; the nodes are this machine, each with its own GPUs; nothing is installed):
  one         `continuous` on the first GPU: --queries, --rate
  replicas    the same on one node with two GPUs: twice the queries, twice the rate
  cluster     the same on two nodes with a GPU each, as one system with one LoadGen
  sequential  the profile quick-generate without speed limits: on one GPU, and spread over two
  nodes       the profile quick on two nodes with a GPU each
  probes      the profile hardware on one node with two GPUs, three times: each figure's median and spread
with LoadGen and the engine `vllm` (as benchmarks/against_vllm.py):
  vllm        one copy on one GPU: --queries, --rate
  tensor      one copy over two GPUs, tensor parallel; pipeline: in two stages; data: a copy on each, twice the load
with neither:
  tokens      greedy tokens of a small model in float32, for every parallelism, compared with one GPU
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.node.serving.provisioned import free_port
from benchmark.records import DRIVER
from benchmarks import against_vllm, greedy, workloads
from benchmarks.against_vllm import COMPARED
from benchmarks.apart import Row, rows_apart
from benchmarks.playbook import PROMPTS, Playbook, write_profile, write_without_limits
from benchmarks.table import Table

OFFLINE, SERVER = "Offline", "Server"
COLUMNS = {
    **{"part": 10, "load": 24, "GPUs": 4, "queries": 7, "valid": 5, "QPS": 6, "tokens/s": 8},
    **{"TTFT P50": 8, "P99": 8, "TPOT mean": 9, "TPOT P99": 8},
}
# The first part's rates are divided by this multiple of the second's; the target of the ratio, if there is one.
RATIOS: tuple[tuple[str, str, int, tuple[float, float] | None], ...] = (
    ("replicas", "one", 2, (0.97, 1.1)),
    ("cluster", "replicas", 1, (0.97, 1.03)),
    ("tensor", "vllm", 1, None),
    ("pipeline", "vllm", 1, None),
    ("data", "vllm", 2, None),
)
RATES = ("QPS", "tokens/s")
PROBES = 3


def by_playbook(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Measure a load of each kind: on one node with all `gpus`, or on one node per GPU as one system."""
    playbook = _playbook(given, place)
    nodes: dict[str, dict[str, Any]] = {"node": {"gpus": gpus}}
    settings: dict[str, Any] = {}
    if part == "cluster":
        nodes = {f"node{n}": {"gpus": [gpu], "benchmark_serve_port": free_port()} for n, gpu in enumerate(gpus)}
        settings = {"benchmark_system": "cluster", "benchmark_driver": "node0"}
    for kind in given.loads.split(","):
        profile = _profile(kind, given, place, len(gpus))
        name = f"{part}-{kind}"
        load = {"load": kind if kind == OFFLINE else f"{kind} {given.rate * len(gpus):g}/s", "kind": kind}
        asked = {**settings, "benchmark_profile": profile, "benchmark_target_qps": given.rate}
        ran = playbook.run(name, nodes, **asked)
        yield {**load, "GPUs": len(gpus), **ran.row(DRIVER if part == "cluster" else "node")}


def sequential(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Measure plain `generate`, on one GPU and spread over all, without speed limits: the CPU sets its speed."""
    profile = write_without_limits(place, "quick-generate", ("qps", "latency_ms.p99"))
    for used in (gpus[:1], gpus):
        spread = {"benchmark_engine_options": {"tensor_parallel": len(used)}} if len(used) > 1 else {}
        # Spread over processes on the CPU it is one replica too.
        node = {"gpus": used, **({"benchmark_replicas": "auto"} if spread and given.device == "cpu" else {})}
        name = f"{part}-{len(used)}"
        ran = _playbook(given, place).run(name, {"node": node}, benchmark_profile=profile, **spread)
        yield {"load": "generate", "GPUs": len(used), **ran.row("node")}


def quick_nodes(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Measure the default profile, with its probes, on one node per GPU."""
    nodes = {f"node{n}": {"gpus": [gpu]} for n, gpu in enumerate(gpus)}
    ran = _playbook(given, place).run(part, nodes, benchmark_profile="quick", benchmark_probes="on")
    for node in nodes:
        yield {"load": f"quick, {node}", "GPUs": 1, **ran.row(node)}
    verdict = ran.cluster.verdict
    note = f"exit code {ran.code}. {' '.join(verdict.reasons)}"[:600]
    yield {"load": "quick, all", "GPUs": len(gpus), "valid": verdict.valid, "note": note}


def probes(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Measure only the hardware."""
    found: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    asked = {"benchmark_profile": "hardware", "benchmark_probes": "on"}
    for number in range(1, PROBES + 1):
        ran = _playbook(given, place).run(f"{part}-{number}", {"node": {"gpus": gpus}}, **asked)
        if (measured := ran.result("node").probes) is None:
            raise RuntimeError(f"There are no probes: {ran.words}")
        for where, figures in measured.places():
            for name, figure in figures.items():
                called = f"{where} {name}".strip()
                found.setdefault(called, []).append(figure.value)
                units[called] = figure.unit
        yield {
            "load": f"run {number}",
            "GPUs": len(gpus),
            "note": " ".join([f"{measured.seconds:.1f} s", *measured.notes]),
        }
    for name, values in found.items():
        middle = statistics.median(values)
        spread = 100 * (max(values) - min(values)) / middle if middle else 0.0
        words = f"{name}: {middle:.4g} {units[name]} ({min(values):.4g} to {max(values):.4g}, {spread:.1f} %)"
        yield {"load": "median of all", "figure": name, "values": values, "note": words}


def by_vllm(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Measure vLLM's copies with LoadGen: Offline and Server, on one server."""
    options = {"tensor": {"tensor_parallel_size": 2}, "pipeline": {"pipeline_parallel_size": 2}}.get(part, {})
    times = len(gpus) if part == "data" else 1
    kinds = given.loads.split(",")
    if given.device == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    asked = {
        **vars(given),
        "offline": given.queries * times if OFFLINE in kinds else 0,
        "loads": [f"2000/100@{given.rate * times:g}"] if SERVER in kinds else [],
        "vllm_options": {**options, **given.vllm_options},
        "vocabulary": given.vocabulary,
        "engines": "vllm",
        "rest": against_vllm.REST_S,
        "url": "",
    }
    for row in against_vllm.vllm(argparse.Namespace(**asked)):
        kind = OFFLINE if row["load"] == OFFLINE else SERVER
        yield {**row, "GPUs": len(gpus), "kind": kind if "queries" in row else ""}


def tokens(part: str, given: argparse.Namespace, place: Path, gpus: Sequence[str]) -> Iterator[Row]:
    """Compare the tokens of all engines and parallelisms."""
    return greedy.compare(given.vllm_dir, given.device, gpus, 0.7 * given.part_s, place)


# The number of GPUs that a part needs, and its function.
Measure = Callable[[str, argparse.Namespace, Path, Sequence[str]], Iterator[Row]]
PARTS: dict[str, tuple[int, Measure]] = {
    "one": (1, by_playbook),
    "vllm": (1, by_vllm),
    "replicas": (2, by_playbook),
    "cluster": (2, by_playbook),
    "tensor": (2, by_vllm),
    "pipeline": (2, by_vllm),
    "data": (2, by_vllm),
    "sequential": (2, sequential),
    "tokens": (2, tokens),
    "nodes": (2, quick_nodes),
    "probes": (2, probes),
}


def rows_of(part: str, given: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Yield a part's rows, measured in a separate process, or the reason why there are none."""
    needs, measure = PARTS[part]
    gpus = given.gpus.split(",")[:needs]
    if len(gpus) < needs:
        yield {"part": part, "note": f"needs {needs} GPUs, and --gpus is {given.gpus}"}
        return
    place.mkdir()
    for row in rows_apart(measure, part, given, place, gpus, limit_s=given.part_s):
        yield {"part": part, **row}


def ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each load that both parts ran, and one for `sequential` on two GPUs against one."""
    for part, other, times, wanted in RATIOS:
        for kind in (OFFLINE, SERVER):
            one, two = (_last(rows, name, kind) for name in (part, other))
            # Under Server the schedule sets the tokens/s, so compare the queries that were served.
            rate = "tokens/s" if kind == OFFLINE else "QPS"
            if one.get(rate) and two.get(rate):
                ratio = one[rate] / (times * two[rate])
                said = f"{part} / {f'{times} x ' if times > 1 else ''}{other}, {kind}: {rate} {ratio:.3f}"
                if wanted:
                    met = "met" if wanted[0] <= ratio <= wanted[1] else "MISSED"
                    said += f" (target {wanted[0]} to {wanted[1]}: {met})"
                yield ", ".join([said, *_times(one, two)])
    alone, spread = (
        next((row for row in reversed(rows) if row["part"] == "sequential" and row.get("GPUs") == count), {})
        for count in (1, 2)
    )
    if alone.get("TPOT mean") and spread.get("TPOT mean"):
        yield ", ".join(["sequential, two GPUs / one", *_times(spread, alone)])


def _last(rows: Sequence[Row], part: str, kind: str) -> Row:
    return next((row for row in reversed(rows) if row["part"] == part and row.get("kind") == kind), {})


def _times(one: Row, two: Row) -> Iterator[str]:
    for name in COMPARED:
        if name not in RATES and one.get(name) and two.get(name):
            yield f"{name} {one[name] / two[name]:.3f}"


def _playbook(given: argparse.Namespace, place: Path) -> Playbook:
    return Playbook(place, given.model, given.device, given.dtype, given.run_s, given.keep)


def _profile(kind: str, given: argparse.Namespace, place: Path, times: int) -> str:
    """Write the profile of a load that is `times` the load of one GPU."""
    if kind == OFFLINE:
        count = given.queries * times
        load = {"min_duration_ms": 0, "min_query_count": count, "max_query_count": count}
        return write_profile(place, "mlperf-offline", load, count, given.shrink)
    load = {"min_duration_ms": int(given.seconds * 1000), "min_query_count": 1}
    prompts = max(1, min(PROMPTS, round(given.rate * given.seconds)))
    return write_profile(place, "mlperf-server", load, prompts, given.shrink)


def main() -> None:
    """Run the parts in the given order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="directory of the model")
    parser.add_argument("--vllm-dir", type=workloads.place, default=workloads.VLLM, help="vLLM's environment")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, in order; '': only the ratios")
    parser.add_argument("--loads", default=f"{OFFLINE},{SERVER}", help="loads of the parts that have both")
    parser.add_argument("--gpus", default=os.environ.get("CUDA_VISIBLE_DEVICES", "0,1"), help="by nvidia-smi's numbers")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--vocabulary", type=int, default=128_000, help="token ids of vLLM's prompts are below this")
    parser.add_argument("--shrink", type=int, default=1, help="divide the lengths of prompts and answers by this")
    parser.add_argument("--queries", type=int, default=1024, help="queries of Offline, for one GPU")
    parser.add_argument("--rate", type=float, default=31.25, help="queries/s of Server, for one GPU")
    parser.add_argument("--seconds", type=float, default=60, help="duration of Server")
    parser.add_argument("--vllm-options", type=json.loads, default={}, help="JSON: further options of the engine vllm")
    parser.add_argument(
        "--run-s", type=int, default=240, help="seconds that a playbook's run may load, and again measure"
    )
    parser.add_argument("--part-s", type=float, default=480, help="seconds after which a part is ended")
    parser.add_argument("--keep", type=Path, help="copy the playbook's summaries, reports and logs to this directory")
    parser.add_argument("--json", type=Path, help="also write the table to this file, after each row")
    parser.add_argument(
        "--earlier", type=Path, nargs="*", default=[], help="such files of earlier calls, for the ratios"
    )
    given = parser.parse_args()
    parts = [part for part in given.parts.split(",") if part]
    if unknown := sorted({*parts} - {*PARTS}):
        parser.error(f"--parts: {', '.join(unknown)} is not one of {', '.join(PARTS)}")
    if unknown := sorted({*given.loads.split(",")} - {OFFLINE, SERVER}):
        parser.error(f"--loads: {', '.join(unknown)} is neither {OFFLINE} nor {SERVER}")
    if not given.model and {*parts} - {"tokens", "probes"}:
        parser.error("--model: give the directory of a model")
    table = Table(COLUMNS, {key: str(value) for key, value in vars(given).items()})
    earlier = [row for path in given.earlier for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        for part in parts:
            for row in rows_of(part, given, Path(directory) / part):
                table.add(row)
                if given.json:
                    table.write(given.json)
    for line in ratios([*earlier, *table.rows]):
        table.say(line)


if __name__ == "__main__":
    main()
