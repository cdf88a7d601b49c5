"""Records and run directories for tests, built with the program's own parts, and strategies that draw them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmark import metrics
from benchmark.cluster.leader import controller
from benchmark.columns import Columns
from benchmark.files import sample_writer, write_record
from benchmark.records import (
    Attempt,
    DatasetInfo,
    EngineInfo,
    Environment,
    Gpu,
    NodeResult,
    Repeat,
    RunRecord,
    Sample,
    Solo,
    Window,
)
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from benchmark.resolve import resolve
from benchmark.rundir import NODES, RUN_FILE, of_repeat, read_run
from benchmark.settings import ResolvedSettings
from benchmark.verdict import Findings, judge

RUN_ID = "20250102T030405Z-0123abcd"
START_NS = 1_735_787_045_000_000_000
MS = 1_000_000
# What the settings ask of one GPU when nobody says otherwise.
TARGET_QPS = 0.5
GPU = Gpu(index=0, name="NVIDIA A30", memory_mib=24576, uuid="GPU-1")
HOST = Environment(
    hostname="host", platform="Linux", cpu="a CPU", cpu_count=8, memory_mib=65536, python="3.11.2", gpus=(GPU,)
)


def sample(index: int, latency_ms: float = 1800, ttft_ms: float = 50, tokens: int = 64, start_ms: float = 0) -> Sample:
    """Return a completed sample that was issued a tenth of a millisecond late."""
    start = int(start_ms * MS)
    return Sample(
        index=index,
        prompt_id=f"prompt-{index}",
        scheduled_ns=start,
        issued_ns=start + MS // 10,
        first_token_ns=start + int(ttft_ms * MS),
        completed_ns=start + int(latency_ms * MS),
        input_tokens=30,
        output_tokens=tokens,
        token_ids=tuple(range(tokens)),
    )


def closed_loop(latencies_ms: Sequence[float]) -> list[Sample]:
    """Return one completed sample per latency, each scheduled when the last one completed."""
    samples: list[Sample] = []
    start = 0.0
    for index, latency in enumerate(latencies_ms):
        samples.append(sample(index, latency, min(50, latency), 64, start))
        start += latency
    return samples


def failed(index: int, start_ms: float = 0) -> Sample:
    """Return a failed sample."""
    at = int(start_ms * MS)
    return Sample(index=index, prompt_id=f"prompt-{index}", scheduled_ns=at, issued_ns=at, error="out of memory")


def asked(samples: int = 20, profile: dict[str, Any] | None = None, **settings: Any) -> ResolvedSettings:
    """Return resolved settings of profile quick with `samples` queries."""
    base = resolve(settings)
    changed = {**base.profile.model_dump(), "samples": samples, "accuracy": "off", **(profile or {})}
    return ResolvedSettings.model_validate({"settings": base.settings, "profile": changed})


def make_run(
    directory: Path, nodes: dict[str, ResolvedSettings], run_id: str = RUN_ID, at: str = "2025-01-02T03:04:05+00:00"
) -> Path:
    """Write run.json and the nodes' empty directories; return the run's directory."""
    record = RunRecord(
        run_id=run_id,
        created_at=at,
        command="ansible-playbook playbooks/benchmark.yml",
        versions={},
        nodes=nodes,
    )
    for node in nodes:
        (directory / NODES / node).mkdir(parents=True, exist_ok=True)
    write_record(directory / RUN_FILE, record)
    return directory


def result_of(node: str, resolved: ResolvedSettings, samples: Sequence[Sample], **changes: Any) -> NodeResult:
    """Return the complete result that the samples give; `changes` replace its fields."""
    columns = Columns.of(samples)
    planned, least = resolved.profile.samples or metrics.issued(columns), resolved.profile.generation.min_new_tokens
    measured = metrics.compute(columns, planned, None, least)
    last = max((s.completed_ns or s.issued_ns for s in samples), default=0)
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "node": node,
        "status": "complete",
        "stage": "done",
        "started_at": "2025-01-02T03:04:05+00:00",
        "finished_at": "2025-01-02T03:04:55+00:00",
        "resolved": resolved,
        "environment": HOST,
        "engine": EngineInfo(name=resolved.profile.engine),
        "dataset": DatasetInfo(name="curated", prompts=20, sha256="ab" * 32),
        "window": Window(started_unix_ns=START_NS, ended_unix_ns=START_NS + last),
        "metrics": measured,
        "target_qps": TARGET_QPS,
        "verdict": judge(
            resolved.profile,
            Findings(measured, probes=changes.get("probes")),
            TARGET_QPS,
            "complete",
            resolved.settings.benchmark_probe_floors,
        ),
    }
    return NodeResult.model_validate({**fields, **changes})


def often(
    result: NodeResult, later: Sequence[Sequence[Sample]] = (), alone: Sequence[Sample] | None = None
) -> NodeResult:
    """Return the result with further repeats, and with a turn alone, that these samples give."""
    made = [result_of(result.node, result.resolved, samples) for samples in later]
    repeats = [
        Repeat.model_validate({"number": number, **{n: getattr(one, n) for n in ("window", "metrics", "verdict")}})
        for number, one in enumerate(made, start=2)
    ]
    solo = None
    if alone is not None:
        before = result_of(result.node, result.resolved, alone)
        solo = Solo.model_validate({"window": before.window, "metrics": before.metrics})
    return NodeResult.model_validate({**dict(result), "repeats": repeats, "solo": solo})


def write_node(
    run_dir: Path,
    result: NodeResult,
    samples: Sequence[Sample],
    later: Sequence[Sequence[Sample]] = (),
    alone: Sequence[Sample] = (),
) -> Path:
    """Write a node's files as the node would; return its directory."""
    directory = run_dir / NODES / result.node
    directory.mkdir(parents=True, exist_ok=True)
    write_record(directory / f"mlperf_datacenter_{result.node}_20250102T030405Z.json", result)
    files = {"samples.jsonl": samples, **({"solo_samples.jsonl": alone} if alone else {})}
    files |= {of_repeat("samples.jsonl", number): each for number, each in enumerate(later, start=2)}
    for name, each in files.items():
        with sample_writer(directory / name) as writer:
            for one in each:
                writer.append(one)
    return directory


def add_node(
    run_dir: Path, node: str, resolved: ResolvedSettings, latencies_ms: Sequence[float], **changes: Any
) -> Path:
    """Write the files of a node that answered in a closed loop."""
    samples = closed_loop(latencies_ms)
    return write_node(run_dir, result_of(node, resolved, samples, **changes), samples)


def hardware(**settings: Any) -> ResolvedSettings:
    """Return resolved settings of the profile that only probes."""
    return resolve({"benchmark_profile": "hardware", **settings})


def probes(gpus: int = 1, pace: float = 1.0, slow: int | None = None, **node: Any) -> HardwareProbes:
    """Return what an H200's probes give, `pace` times as fast; the GPU `slow` reads its memory at four fifths of it.

    `node`: replaces fields of the record.
    """
    each = {
        "device_memory_read": (4100.0, "GB/s"),
        "kernel_launch": (2.0, "us"),
        "matrix_bfloat16": (700.0, "TFLOP/s"),
        "sustained_matrix_bfloat16": (650.0, "TFLOP/s"),
    }
    beside = {"sustained_clock": (1700.0, "MHz"), "sustained_throttled_sw_power_cap": (0.4, "share")}
    found = []
    for index in range(gpus):
        figures = {
            name: Measured(value=value / pace if unit == "us" else value * pace, unit=unit)
            for name, (value, unit) in each.items()
        }
        if index == slow:
            figures["device_memory_read"] = Measured(value=0.8 * 4100 * pace, unit="GB/s")
        figures |= {name: Measured(value=value, unit=unit) for name, (value, unit) in beside.items()}
        figures["wrong_products"] = Measured(value=0, unit=f"of {38 + index % 2}")
        found.append(GpuProbes(index=index, name="NVIDIA H200", uuid=f"GPU-{index}", figures=figures))
    pairs = [(one, other) for one in range(gpus) for other in range(gpus) if one != other]
    between = {f"peer_copy_{a}_to_{b}": Measured(value=380 * pace + a, unit="GB/s") for a, b in pairs}
    if pairs:
        between["all_reduce"] = Measured(value=470 * pace, unit="GB/s")
    fields: dict[str, Any] = {
        "node": {"cpu_one_core": Measured(value=600 * pace, unit="MB/s")},
        "gpus": tuple(found),
        "between_gpus": between,
        "seconds": 25.0,
    }
    return HardwareProbes.model_validate({**fields, **node})


def add_probed(
    run_dir: Path, node: str, resolved: ResolvedSettings, found: HardwareProbes | None, **changes: Any
) -> Path:
    """Write the files of a node whose hardware alone was probed."""
    settings = resolved.settings
    gpus = (
        tuple(GPU.model_copy(update={"index": g.index, "name": g.name, "uuid": g.uuid}) for g in found.gpus)
        if found
        else ()
    )
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "node": node,
        "status": "complete",
        "stage": "done",
        "started_at": "2025-01-02T03:04:05+00:00",
        "finished_at": "2025-01-02T03:04:30+00:00",
        "resolved": resolved,
        "environment": HOST.model_copy(update={"gpus": gpus or HOST.gpus}),
        "probes": found,
        "verdict": judge(
            resolved.profile, Findings(None, probes=found), 0, "complete", settings.benchmark_probe_floors
        ),
    }
    result = NodeResult.model_validate({**fields, **changes})
    directory = run_dir / NODES / node
    directory.mkdir(parents=True, exist_ok=True)
    write_record(directory / f"mlperf_datacenter_{node}_20250102T030405Z.json", result)
    return directory


def _drawn(index: int, times: tuple[int, int, int, int], input_tokens: int, tokens: int, error: str | None) -> Sample:
    scheduled, delay, first, rest = times
    issued = scheduled + delay
    if error is not None:
        return Sample(index=index, prompt_id="p", scheduled_ns=scheduled, issued_ns=issued, error=error)
    return Sample(
        index=index,
        prompt_id="p",
        scheduled_ns=scheduled,
        issued_ns=issued,
        first_token_ns=issued + first,
        completed_ns=issued + first + rest,
        input_tokens=input_tokens,
        output_tokens=tokens,
        token_ids=tuple(range(1, tokens + 1)),
    )


def sample_lists(most: int = 30) -> st.SearchStrategy[list[Sample]]:
    """Lists of completed and failed samples with the indexes 0, 1, 2, ..."""
    times = st.tuples(*(st.integers(0, 10**digits) for digits in (12, 9, 10, 11)))
    errors = st.sampled_from([None, None, None, "out of memory", "메모리 부족 \u2028"])
    drawn = st.tuples(times, st.integers(0, 1000), st.integers(1, 5), errors)
    return st.lists(drawn, max_size=most).map(lambda each: [_drawn(i, *one) for i, one in enumerate(each)])


@contextmanager
def in_progress(run_dir: Path) -> Iterator[None]:
    """Within, the run's leader is at work."""
    run, process = read_run(run_dir), subprocess.Popen(["sleep", "600"])
    try:
        leader = Attempt(at=run.created_at, command="", nodes=tuple(run.nodes), controller=controller(process.pid))
        write_record(run_dir / RUN_FILE, run.model_copy(update={"attempts": (leader,)}))
        yield
    finally:
        process.kill()
        process.wait()
