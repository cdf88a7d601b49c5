"""Compare `continuous` with vLLM on one machine: same prompts, LoadGen, same definitions; print a table and ratios.

    python3 -m benchmarks.against_vllm --model DIRECTORY --vllm-dir DIRECTORY [--seconds 60]
    python3 -m benchmarks.against_vllm ... --loads 2000/100@31.25,34.5 500/30@28 --engines continuous,vllm,client

`continuous` uses the engine options of the profiles mlperf-offline, mlperf-server and mlperf-interactive; vLLM uses its
defaults, except that prefix caching is off. `client` is vLLM's own client, `vllm bench serve`. It queries the server
that the engine `vllm` started, with the fields of our requests and prompts of the same lengths in the same order. It
needs pandas in vLLM's environment, besides the locked packages. It runs the loads whose queries come at once or evenly
spaced: only these show whether both clients measure the same, because with random arrivals each client draws its own.
If a rate is named more than once, the clients alternate. After each of vLLM's rows come observations made during it,
with either client: the server's own figures, the GPU's clock, CPU time that a hypervisor took. Prompts have 60 to 2,500
random tokens, answers 128. All visible GPUs serve: as replicas, or as copies with vLLM's data parallelism.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import string
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmark import metrics
from benchmark.columns import Columns
from benchmark.loadgen_options import Purpose
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Conditions, Engine, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import make_scenario
from benchmark.node.serving.request import body
from benchmark.profiles import Generation, load_profile
from benchmark.settings import Settings
from benchmarks import workloads
from benchmarks.apart import rows_apart
from benchmarks.meanwhile import Meanwhile
from benchmarks.table import Table

OFFLINE, EVEN = "Offline", "even"
PROFILES = {
    OFFLINE: "mlperf-offline",
    EVEN: "mlperf-server",
    "2000/100": "mlperf-server",
    "500/30": "mlperf-interactive",
}
COLUMNS = {
    **{"load": 22, "engine": 10, "valid": 5, "queries": 7, "QPS": 6, "tokens/s": 8, "TTFT P50": 8, "P99": 8},
    **{"TPOT mean": 9, "TPOT P99": 8},
}
COMPARED = ("tokens/s", "TTFT P50", "P99", "TPOT mean", "TPOT P99")
WARM_UP = 128
# Different prompts of a Server run; the number of queries is a multiple of this.
PROMPTS = 256
# `--burstiness` of vLLM's client: with "inf" its queries are evenly spaced.
EVENLY = "inf"
# Fields that vLLM's client sets itself.
CLIENTS_OWN = ("model", "prompt", "stream")
WARM_UP_S = 300
# A server that takes longer is considered not to start.
START_S = 300
# About as long as vLLM's client or one of our engines takes to start, so that all loads begin on an equally cool GPU.
REST_S = 25.0


@dataclass(frozen=True)
class Job:
    """One load: queries all at once, or a rate, with limits (P99 TTFT and P99 TPOT in ms) or evenly spaced."""

    kind: str
    rate: float = 0.0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The load's name in the table."""
        return self.kind if self.kind == OFFLINE else f"{self.kind} at {self.rate:g}/s"

    def queries(self, offline: int) -> int:
        """Return the number of queries; for Offline it is `offline`."""
        return offline if self.kind == OFFLINE else max(1, round(self.rate * self.seconds))

    def valid(self, row: dict[str, Any]) -> bool | None:
        """Return whether the limits are met; None if there are no limits or no figures."""
        if self.kind in (OFFLINE, EVEN) or row["P99"] is None or row["TPOT P99"] is None:
            return None
        ttft, tpot = map(float, self.kind.split("/"))
        return not row["failed"] and row["P99"] <= ttft and row["TPOT P99"] <= tpot


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the requested loads; those of one kind follow each other, because they share an engine."""
    found = [Job(OFFLINE)] if arguments.offline else []
    for load in arguments.loads:
        kind, _, rates = load.partition("@")
        if kind not in PROFILES or kind == OFFLINE:
            raise SystemExit(f"--loads: {kind} is not one of {', '.join(k for k in PROFILES if k != OFFLINE)}")
        found += [Job(kind, float(rate), arguments.seconds) for rate in rates.split(",")]
    return found


def main() -> None:
    """Run each engine in its own process, so that it frees the GPU's memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument(
        "--vllm-dir", type=workloads.place, default=workloads.VLLM, help="directory of vLLM's environment"
    )
    parser.add_argument(
        "--url", default="", help="URL of a vLLM that already serves the model, instead of starting one"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--vocabulary", type=int, default=128_000, help="token ids of the prompts are below this")
    parser.add_argument("--shrink", type=int, default=1, help="divide the lengths of prompts and answers by this")
    parser.add_argument(
        "--engines", default="continuous,vllm,client", help="comma-separated; client: vllm bench serve, needs vllm"
    )
    parser.add_argument("--offline", type=int, default=1024, help="queries of Offline, all at once; 0: no Offline")
    parser.add_argument(
        "--loads",
        nargs="*",
        default=["even@25", "2000/100@31.25", "500/30@28"],
        help="LIMITS@RATE,RATE ..., or even@RATE,...",
    )
    parser.add_argument(
        "--leave-out",
        nargs="*",
        default=[],
        metavar="FIELD,...",
        help="fields of our requests: the client runs once more without them, to show what they cost the server",
    )
    parser.add_argument(
        "--rest",
        type=float,
        default=REST_S,
        help="seconds without a query before each load",
    )
    parser.add_argument("--seconds", type=float, default=60, help="duration of each rate")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON: further options of continuous")
    parser.add_argument("--vllm-options", type=json.loads, default={}, help="JSON: options of the engine vllm")
    parser.add_argument("--json", type=Path, help="also write the table to this file, after each row")
    arguments = parser.parse_args()
    jobs(arguments)
    table = Table(COLUMNS, {key: str(value) for key, value in vars(arguments).items()})
    engines = arguments.engines.split(",")
    kinds = dict.fromkeys(job.kind for job in jobs(arguments))
    runs: list[tuple[Any, ...]] = [(continuous, arguments, kind) for kind in kinds if "continuous" in engines]
    runs += [(vllm, arguments)] if "vllm" in engines else []
    # Each in its own process: an engine keeps GPU memory while its objects live, and the next would lack it.
    for run in runs:
        for row in rows_apart(*run):
            table.add({"load": "", "engine": run[0].__name__, **row})
            if arguments.json:
                table.write(arguments.json)
    for line in ratios(table.rows):
        table.say(line)


def ratios(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line per load and pair of successive engines: the first one's figures divided by the second's."""
    for load in dict.fromkeys(row["load"] for row in rows):
        found = [row for row in rows if row["load"] == load and row.get("tokens/s")]
        for one, other in itertools.pairwise(found):
            parts = [f"{name} {one[name] / other[name]:.3f}" for name in COMPARED if one[name] and other[name]]
            yield f"{load}: {one['engine']} / {other['engine']}: {', '.join(parts)}"


def continuous(arguments: argparse.Namespace, kind: str) -> Iterator[dict[str, Any]]:
    """Measure our engine, started with the options of the profile for this kind of load."""
    options = {**load_profile(PROFILES[kind]).engine_options, **arguments.options}
    with _engine(arguments, "continuous", options) as (engine, ready_s, place):
        yield _note("continuous", kind, f"{options}, ready after {ready_s:.0f} s")
        for job in jobs(arguments):
            if job.kind == kind:
                yield measured(arguments, "continuous", engine, job, place)[0]


def vllm(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure vLLM with our client, then with its own."""
    name, options = ("endpoint", {}) if arguments.url else ("vllm", arguments.vllm_options)
    with _engine(arguments, name, options) as (engine, ready_s, place):
        yield _note("vllm", "all", f"{options}, ready after {ready_s:.0f} s")
        for job in jobs(arguments):
            with Meanwhile(engine) as meanwhile:
                row, lengths = measured(arguments, "vllm", engine, job, place)
            yield meanwhile.beside(row)
            if "client" in arguments.engines.split(",") and job.kind in (OFFLINE, EVEN):
                for without in ([], *(names.split(",") for names in arguments.leave_out)):
                    with Meanwhile(engine) as meanwhile:
                        row = own_client(arguments, engine, job, place, lengths, without)
                    yield meanwhile.beside(row)


class _engine:  # noqa: N801 # used as a function is
    def __init__(self, arguments: argparse.Namespace, name: str, options: dict[str, Any]) -> None:
        work = _work(arguments, 1)
        generation = Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)
        settings: dict[str, Any] = {"benchmark_model": arguments.model, "vllm_dir": arguments.vllm_dir}
        settings |= {"benchmark_endpoint_start_timeout_s": START_S}
        settings |= {"benchmark_device": arguments.device, "benchmark_dtype": arguments.dtype}
        if name == "endpoint":
            settings |= {"benchmark_endpoint_urls": [arguments.url]}
        self.engine = make_engine(name, Settings.model_validate(settings), generation, options)
        self.work = _work(arguments, WARM_UP)

    def __enter__(self) -> tuple[Engine, float, Path]:
        self.directory = tempfile.TemporaryDirectory()
        place = self.engine.directory = Path(self.directory.name)
        began = now_ns()
        try:
            self.engine.load()
            ready_s = (now_ns() - began) / 1e9
            # Let kernels, graphs and memory settle, with other tokens than the measured ones.
            workloads.run(self.engine, self.work.warm_up(WARM_UP), time.monotonic() + WARM_UP_S, at_once=True)
        except BaseException:
            self.engine.close()
            raise
        return self.engine, ready_s, place

    def __exit__(self, *about: object) -> None:
        with closing(self.engine):
            self.directory.cleanup()


def measured(
    arguments: argparse.Namespace, name: str, engine: Engine, job: Job, place: Path
) -> tuple[dict[str, Any], list[int]]:
    """Rest, run LoadGen once (our scenario for evenly spaced queries), and return a row and the prompts' lengths.

    The lengths are in tokens, in the order in which the prompts were issued.
    """
    time.sleep(arguments.rest)
    count = job.queries(arguments.offline)
    purpose: Purpose = "probe"
    if job.kind in (OFFLINE, EVEN):
        purpose = "burst" if job.kind == OFFLINE else "performance"
    scenario = "schedule" if job.kind == EVEN else "loadgen"
    options: dict[str, Any] = {"arrivals": "constant"}
    if job.kind != EVEN:
        options = {"scenario": "Server", "burst_query_count": count, "probe_query_count": 1}
        options |= {"probe_duration_ms": max(1, int(job.seconds * 1000))}
    # LoadGen's Server issues each prompt equally often.
    prompts = _work(arguments, min(count, PROMPTS) if purpose == "probe" else count).queries()
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    prefix = f"{name}_{job.kind.replace('/', '_')}_{job.rate:g}_"
    conditions = Conditions(place, job.rate or float(count), purpose, prefix)
    workload = Workload(tuple(query.prompt for query in prompts), None, 0)
    outcome = make_scenario(scenario, options).run(workload, recorder, conditions)
    recorder.close()
    row = {"load": job.name, "engine": name, **figures(Columns.of(recorder.amend(outcome.scheduled_ns)))}
    row["valid"] = job.valid(row)
    row["note"] = f"{row['failed']} failed" if row["failed"] else ""
    lengths = {query.prompt.id: len(query.prompt.token_ids or ()) for query in prompts}
    return row, [lengths[sample.prompt_id] for sample in sorted(recorder.samples, key=lambda sample: sample.index)]


def figures(samples: Columns) -> dict[str, Any]:
    """Return a row's figures; times count from the schedule, rates from the first issue to the last completion."""
    done = samples.completed
    row: dict[str, Any] = {"queries": len(samples), "failed": len(samples) - int(np.count_nonzero(done))}
    ttft = metrics.distribution(metrics.defined(metrics.ttfts_ms(samples)))
    tpot = metrics.distribution(metrics.defined(metrics.tpots_ms(samples)))
    row |= {"TTFT P50": ttft and ttft.p50, "P99": ttft and ttft.p99}
    row |= {"TPOT mean": tpot and tpot.mean, "TPOT P99": tpot and tpot.p99}
    seconds = (samples.last_ns - int(samples.issued_ns.min())) / 1e9
    row["QPS"] = (len(samples) - row["failed"]) / seconds
    return {**row, "tokens/s": int(samples.output_tokens[done].sum()) / seconds}


def own_client(
    arguments: argparse.Namespace,
    engine: Engine,
    job: Job,
    place: Path,
    lengths: Sequence[int],
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Run `vllm bench serve` with the fields of our requests, except those in `without`, and return its row.

    Its prompts are text, since it takes no token ids; they have as many tokens as ours by the model's tokenizer.
    """
    count = len(lengths)
    work = _work(arguments, count)
    draw = random.Random(1)  # noqa: S311 # no secret
    prompts, result = place / "prompts.jsonl", place / "result.json"
    # Not with transformers: it imports torch, and collecting garbage among all its objects would delay our client.
    tokenizer = Tokenizer.from_file(f"{arguments.model}/tokenizer.json")
    texts = (_letters(tokenizer, length, draw) for length in lengths)
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    settings = engine.settings
    command = [
        *(str(Path(arguments.vllm_dir, "bin", "vllm")), "bench", "serve", "--backend", "openai"),
        *("--base-url", settings.benchmark_endpoint_urls[0]),
        *("--model", settings.benchmark_endpoint_model or arguments.model),
        *("--tokenizer", arguments.model, "--dataset-name", "custom", "--dataset-path", str(prompts)),
        *("--custom-output-len", str(work.output_tokens), "--skip-chat-template", "--disable-shuffle"),
        *("--extra-body", json.dumps(fields(engine, work, without))),
        *("--num-prompts", str(count), "--request-rate", f"{job.rate:g}" if job.rate else "inf", "--seed", "1"),
        *("--burstiness", EVENLY),
        *("--percentile-metrics", "ttft,tpot", "--metric-percentiles", "50,99"),
        *("--save-result", "--result-dir", str(place), "--result-filename", result.name, "--disable-tqdm"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    asking = "its client" + (f" without {', '.join(without)}" if without else "")
    row: dict[str, Any] = {"load": job.name, "engine": asking, "queries": count}
    if done.returncode or not result.is_file():
        return {**row, "note": f"vllm bench serve: {(done.stderr or done.stdout).strip()[-300:]}"}
    found = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    row |= {"failed": count - found["completed"], "QPS": found["request_throughput"]}
    row |= {"tokens/s": found["output_throughput"], "TTFT P50": found["p50_ttft_ms"], "P99": found["p99_ttft_ms"]}
    row |= {"TPOT mean": found["mean_tpot_ms"], "TPOT P99": found["p99_tpot_ms"]}
    mean = found["total_input_tokens"] / max(1, found["completed"])
    note = f"{mean:.0f} tokens in on average, ours {statistics.fmean(lengths):.0f}"
    return {**row, "valid": job.valid(row), "note": note}


def fields(engine: Engine, work: workloads.Workload, without: Collection[str] = ()) -> dict[str, Any]:
    """Return what our engine sends besides the prompt; one query's seed serves for all, since they are greedy."""
    asked = body("completions", "", work.queries()[0], engine.generation)
    return {name: value for name, value in asked.items() if name not in (*CLIENTS_OWN, *without)}


def _letters(tokenizer: Tokenizer, length: int, draw: random.Random) -> str:
    """Return letters that make `length` tokens; adjacent letters may form one token, so more letters are added."""
    text = ""
    while (missing := length - len(tokenizer.encode(text).ids)) > 0:
        text += "".join(draw.choices(string.ascii_letters, k=missing))
    return text


def _work(arguments: argparse.Namespace, count: int) -> workloads.Workload:
    return workloads.summaries(count, arguments.vocabulary, arguments.shrink)


def _note(engine: str, load: str, note: str) -> dict[str, Any]:
    return {"load": load, "engine": engine, "note": note}


if __name__ == "__main__":
    main()
