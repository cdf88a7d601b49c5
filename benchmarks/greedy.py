"""Compare the greedy tokens of a small model in float32 between engines and parallelism: how many answers are equal."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.node.hosting import make_engine
from benchmark.node.model.tiny import VOCABULARY, make_tiny_model
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import workloads
from benchmarks.apart import Row, rows_apart

QUERIES, ANSWER = 16, 32
# Widths divisible by heads of 64, the smallest that every attention of vLLM supports, and by two GPUs; and an even
# number of layers for two pipeline stages.
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 64}
# Several servers start at the same time on the same GPUs, so none may size its cache by the memory that is free.
SERVER = {"gpu_memory_utilization": 0.05, "arguments": ["--enforce-eager", "--kv-cache-memory-bytes=268435456"]}
ASK_S = 60


@dataclass(frozen=True)
class Way:
    """An engine, its options, and the number of GPUs it uses."""

    engine: str
    words: str
    gpus: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.engine}, {self.words}"


ONE, TOGETHER = "one GPU", "tensor 2"
WAYS = (
    Way("sequential", ONE),
    Way("sequential", TOGETHER, 2, {"tensor_parallel": 2}),
    Way("vllm", ONE),
    Way("vllm", TOGETHER, 2, {"tensor_parallel_size": 2}),
    Way("vllm", "pipeline 2", 2, {"pipeline_parallel_size": 2}),
    Way("vllm", "data 2", 2),
)


def compare(vllm_dir: str, device: str, gpus: Sequence[str], limit_s: float, place: Path) -> Iterator[Row]:
    """Yield a row for each way: how many of its answers equal those of one GPU, or why it failed.

    On GPUs all are started at once, since nothing is timed. On the CPU they run one after the other.
    """
    model = make_model(place / "greedy")
    ways = [way for way in WAYS if device == "cuda" or way.gpus == 1 or way.engine != "vllm"]
    with ThreadPoolExecutor(len(ways) if device == "cuda" else 1) as pool:
        asked = [pool.submit(_answers, way, model, vllm_dir, device, list(gpus), limit_s) for way in ways]
        found = {str(way): one.result() for way, one in zip(ways, asked, strict=True)}
    references = [str(way) for way in ways if way.words == ONE]
    for way in ways:
        answers, note = found[str(way)]
        others = {name: found[name][0] for name in references if name != str(way) and answers and found[name][0]}
        compared = [f"as with {name}: {same(answers, other)}" for name, other in others.items()]
        # Another engine may round differently, such as in TF32 products: what counts is the same engine on one GPU.
        own = others.get(str(Way(way.engine, ONE)))
        equal = None if own is None else answers == own
        row = {"load": str(way), "GPUs": way.gpus, "queries": len(answers), "valid": equal, "answers": answers}
        yield {**row, "note": note or "; ".join(compared)}


def make_model(directory: Path) -> Path:
    """Write the model, with the same weights each time."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    make_tiny_model(directory)
    config = AutoConfig.from_pretrained(directory)
    config.update(SHAPE)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def same(answers: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> str:
    """Say how many answers are equal, and after how many tokens the others diverge."""
    pairs = list(zip(answers, others, strict=True))
    parts = [
        next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for one, other in pairs
        if one != other
    ]
    told = f", the others diverge after {', '.join(map(str, parts))} tokens" if parts else ""
    return f"{len(pairs) - len(parts)} of {len(pairs)} answers equal{told}"


def _answers(
    way: Way, model: Path, vllm_dir: str, device: str, gpus: list[str], limit_s: float
) -> tuple[list[list[int]], str]:
    """Return the answers, or the reason why there are none."""
    rows = list(rows_apart(answer, way, str(model), vllm_dir, device, gpus, limit_s=limit_s))
    found: list[list[int]] = next((row["answers"] for row in rows if "answers" in row), [])
    return found, " ".join(row["note"] for row in rows if row.get("note"))[:600]


def answer(way: Way, model: str, vllm_dir: str, device: str, gpus: list[str]) -> Iterator[Row]:
    """Yield the answers of one engine, one query at a time: queries in the same batch may change each other's sums."""
    if device == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: way.gpus])
    settings = {"benchmark_model": model, "benchmark_device": device, "benchmark_dtype": "float32"}
    options = {**SERVER, **way.options} if way.engine == "vllm" else way.options
    generation = Generation(max_new_tokens=ANSWER, min_new_tokens=ANSWER)
    made = make_engine(way.engine, Settings.model_validate({**settings, "vllm_dir": vllm_dir}), generation, options)
    queries = workloads.Workload("G", tuple(range(16, 16 + 8 * QUERIES, 8)), ANSWER, VOCABULARY).queries()
    with tempfile.TemporaryDirectory() as directory, closing(made) as engine:
        engine.directory = Path(directory)
        engine.load()
        found = workloads.run(engine, queries, time.monotonic() + ASK_S, at_once=False)
    if found.errors or len(found.token_ids) < len(queries):
        raise RuntimeError(f"{len(found.token_ids)} of {len(queries)} answered: {' '.join(found.errors[:1])}")
    yield {"answers": [list(found.token_ids[query.index]) for query in queries]}
