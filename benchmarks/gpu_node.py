"""Measure one GPU host without the weights of Llama-3.1-8B: its shape, with random values, costs the same time.

Prints, for the profile `quick` as `python3 -m benchmark run` measures it, QPS, latency, TTFT and TPOT beside the floor
that the memory's bandwidth sets; and what measuring costs: the same prompts through a bare `generate` in the same run.

    python3 benchmarks/gpu_node.py [--rounds 3] [--bandwidth-gb-s 3350] [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.node.datasets import curated
from benchmark.node.engines.sequential import Engine
from benchmark.node.interfaces import Answer, Query
from benchmark.node.prompting import TEMPLATE_DATE
from benchmark.node.tiny_model import make_tiny_model
from benchmark.profiles import load_profile
from benchmark.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]
# config.json of meta-llama/Llama-3.1-8B-Instruct
SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
BYTES_PER_PARAMETER = 2


def make_model(directory: Path, layers: int, device: str) -> None:
    """Write a float16 model of the shape with random weights, and the tiny model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tiny_model(directory)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": layers}, bos_token_id=0, eos_token_id=1))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory)


def run_quick(model: Path, device: str, results: Path) -> dict[str, Any]:
    """Run `python3 -m benchmark run` on the model and return the node's result."""
    settings = {"benchmark_model": model, "benchmark_device": device, "benchmark_results_dir": results}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", *words],
        env={**os.environ, "NODE_NAME": "here", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"the run failed:\n{done.stderr}")
    print(done.stdout, flush=True)
    (path,) = (results / "latest").resolve().glob("nodes/here/mlperf_datacenter_*.json")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def print_quick(results: list[dict[str, Any]], bandwidth_gb_s: float) -> None:
    """Print median and spread of the rounds, and the floor of the time per output token."""
    rows = {
        "QPS": [r["metrics"]["qps"] for r in results],
        "latency P50 ms": [r["metrics"]["latency_ms"]["p50"] for r in results],
        "TTFT P50 ms": [r["metrics"]["ttft_ms"]["p50"] for r in results],
        "TPOT P50 ms": [r["metrics"]["tpot_ms"]["p50"] for r in results],
        "TPOT min ms": [r["metrics"]["tpot_ms"]["min"] for r in results],
        "issue delay max ms": [r["metrics"]["issue_delay_ms"]["max"] for r in results],
        "loading s": [r["stages_s"]["loading"] for r in results],
    }
    print(f"\n{f'quick, {len(results)} rounds':<20} {'median':>9} {'min':>9} {'max':>9}")
    for name, values in rows.items():
        print(f"{name:<20} {statistics.median(values):9.2f} {min(values):9.2f} {max(values):9.2f}")
    parameters = results[0]["engine"]["details"]["parameters"]
    floor_ms = parameters * BYTES_PER_PARAMETER / (bandwidth_gb_s * 1e9) * 1000
    print(f"TPOT's floor, {parameters * BYTES_PER_PARAMETER / 1e9:.2f} GB / {bandwidth_gb_s:g} GB/s: {floor_ms:.2f} ms")


class Deaf:
    """A listener that keeps nothing."""

    def first_token(self, query: Query, at_ns: int) -> None: ...

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None: ...

    def failed(self, query: Query, error: str) -> None: ...


def compare_bare(model: Path, device: str, rounds: int) -> None:
    """Print the time of the engine's answers beside a bare `generate` of the same inputs, one after the other."""
    import torch

    profile = load_profile("quick")
    engine = Engine(Settings(benchmark_model=str(model), benchmark_device=device), profile.generation, {})
    engine.load()
    ratios = []
    for number in range(rounds + 1):
        engine_s = bare_s = 0.0
        for index, prompt in enumerate(curated.prompts()):
            query = Query(index=index, prompt=prompt, seed=profile.generation.seed + index)
            began = time.perf_counter()
            engine.submit(query, Deaf())
            engine_s += time.perf_counter() - began
            inputs = engine._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt.text}],
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                date_string=TEMPLATE_DATE,
            ).to(engine._model.device)
            torch.manual_seed(query.seed)
            began = time.perf_counter()
            with torch.inference_mode():
                engine._model.generate(**inputs, generation_config=engine._config)[0].tolist()
            bare_s += time.perf_counter() - began
        if number:  # the first round warms up
            ratios.append(engine_s / bare_s)
            print(f"round {number}: engine {engine_s:.2f} s, bare generate {bare_s:.2f} s", flush=True)
    print(f"engine / bare generate: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def main() -> None:
    """Make the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=32, help="fewer: for trying the script")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--bandwidth-gb-s", type=float, default=3350, help="the GPU memory's: H100 SXM 3350, A30 933")
    parser.add_argument("--keep", type=Path, help="keep the model and the results here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        if not (place / "model").exists():
            began = time.perf_counter()
            make_model(place / "model", arguments.layers, arguments.device)
            print(f"made the model in {time.perf_counter() - began:.0f} s", flush=True)
        rounds = range(arguments.rounds)
        results = [run_quick(place / "model", arguments.device, place / "results") for _ in rounds]
        print_quick(results, arguments.bandwidth_gb_s)
        compare_bare(place / "model", arguments.device, arguments.rounds)


if __name__ == "__main__":
    main()
