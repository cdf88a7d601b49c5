"""Measure the engines on one device without real weights: the shape of Llama-3.1-8B with random values.

Prints one table, a row as soon as it is known: first what the device can do at best, then

  A  32 tokens in, 64 out: one by one through `sequential` and a bare `generate`, all at once through `continuous`
  B  prompts as long as CNN/DailyMail's, 128 out: all at once through `continuous`, with each attention there is, with
     and without CUDA graphs and asynchronous batching; and the highest Server QPS at which short runs of LoadGen keep
     P99 TTFT and TPOT within MLPerf's limits (in ms, as "2000/100")

Needs no network. What cannot be measured is a row with the reason, and the rest goes on.

    python3 benchmarks/engine.py [--dtype float16] [--budget-s 300] [--parts floor,sequential,continuous] [--json PATH]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.node import attention as kernels
from benchmark.node import interfaces
from benchmark.node.engines import continuous, sequential
from benchmark.node.generation import generation_config
from benchmark.node.interfaces import now_ns
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import floor, split, workloads
from benchmarks.shapes import SHAPES, make_on_device
from benchmarks.table import Table
from benchmarks.workloads import Measured, Workload

PARTS = ("floor", "sequential", "continuous", "split", "server")
# MLPerf's limits of the Server scenario, and those of Interactive, by LoadGen's name of the model.
LIMITS = {"llama3_1-8b": "2000/100", "llama3_1-8b-interactive": "500/30"}
# The fastest first: time may run out.
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "torch_flash", "sdpa", "paged|eager")
COLUMNS = {
    **{"workload": 8, "engine": 13, "attention": 17, "graphs": 6, "async": 5, "queries": 7, "seconds": 7},
    **{"tokens/s": 8, "of most": 7, "TTFT ms": 8, "TPOT ms": 7, "peak GB": 7},
}


class Bench:
    """The parts, each a method, on one model."""

    def __init__(self, arguments: argparse.Namespace, table: Table) -> None:
        self.arguments = arguments
        self.table = table
        self.until = time.monotonic() + arguments.budget_s
        self.floor: floor.Floor | None = None
        self.loaded = make_on_device(arguments.shape, arguments.dtype, arguments.device)
        self.settings = Settings(benchmark_device=arguments.device, benchmark_dtype=arguments.dtype)
        shrink = 16 if arguments.shape == "tiny" else 1
        vocabulary = self.loaded.model.config.vocab_size
        self.alone = workloads.chat(arguments.queries_alone, vocabulary, shrink)
        self.a = workloads.chat(arguments.queries_a, vocabulary, shrink)
        self.b = workloads.summaries(arguments.queries_b, vocabulary, shrink)

    def run_floor(self) -> None:
        """Measure the device's limits."""
        found = self.floor = floor.measure(self.loaded.model, self.arguments.device)
        most = {one.name: found.tokens_per_s(one.input_tokens, one.output_tokens) for one in (self.a, self.b)}
        self.table.say(
            f"floor: copies {found.copy_gb_s:.0f} GB/s, multiplies {found.matmul_tflop_s:.3g} TFLOP/s; so the TPOT of "
            f"a query alone is {found.tpot_ms:.2f} ms at least, tokens/s are at most {most['A']:.0f} in A and "
            f"{most['B']:.0f} in B",
            copy_gb_s=found.copy_gb_s,
            matmul_tflop_s=found.matmul_tflop_s,
            least_tpot_ms=found.tpot_ms,
            most_tokens_per_s=most,
        )

    def run_sequential(self) -> None:
        """Workload A one by one, and the same through a bare `generate`: what measuring costs."""
        kernels.use(self.loaded.model, "sdpa")
        engine = sequential.Engine(self.settings, _fixed(self.alone), {})
        engine.start(self.loaded)

        def one_by_one(until: float) -> tuple[Measured, dict[str, Any]]:
            workloads.run(engine, self.alone.warm_up(1), until, at_once=False)
            return workloads.run(engine, self.alone.queries(), until, at_once=False), {"attention": "sdpa"}

        self._row(self.alone, "sequential", {}, one_by_one)
        self._row(self.alone, "bare generate", {}, lambda until: (self._bare(until), {"attention": "sdpa"}))

    def run_alone(self) -> None:
        """Workload A one by one through `continuous`: the latency of a query alone."""

        def one_by_one(until: float) -> tuple[Measured, dict[str, Any]]:
            with closing(continuous.Engine(self.settings, _fixed(self.alone), self._options())) as engine:
                details = engine.start(self.loaded).details
                workloads.run(engine, self.alone.warm_up(1), until, at_once=False)
                return workloads.run(engine, self.alone.queries(), until, at_once=False), details

        self._row(self.alone, "one by one", self._options(), one_by_one)

    def run_compiled(self) -> None:
        """Workload A one by one through `generate` with a static cache, which transformers compiles."""
        kernels.use(self.loaded.model, "sdpa")
        self._row(
            self.alone,
            "compiled",
            {},
            lambda until: (self._bare(until, cache_implementation="static"), {"attention": "sdpa"}),
        )

    def run_split(self) -> None:
        """What a step of workload B is made of, and of A."""
        for work in (self.b, self.a):
            with closing(continuous.Engine(self.settings, _fixed(work), self._options())) as engine:
                engine.start(self.loaded)
                workloads.run(engine, work.warm_up(max(1, len(work.lengths) // 4)), self.until, at_once=True)
                for gpu in (False, True) if self.arguments.device != "cpu" else (False,):
                    with split.watch(engine, gpu) as found:
                        workloads.run(engine, work.queries(), self.until, at_once=True)
                    name = f"split {work.name}{', profiled' if gpu else ''}"
                    self.table.say(f"{name}: {found.sentence()}", **{name: dataclasses.asdict(found)})
            self._forget()

    def _options(self, **options: Any) -> dict[str, Any]:
        """Return the options of the engine, with those of the command line."""
        return {**options, **json.loads(self.arguments.options)}

    def run_continuous(self) -> None:
        """Workload A all at once, then B with every attention and every way to run it."""
        device, dtype, config = self.arguments.device, self.arguments.dtype, self.loaded.model.config
        self._continuous(self.a, {"attention": kernels.automatic(config, device, dtype)})
        for name in self.arguments.attentions.split(","):
            if reason := kernels.missing(name, config, device, dtype):
                self.table.add(
                    {"workload": "B", "engine": "continuous", "attention": name, "note": f"not here: {reason}"}
                )
                continue
            self._continuous(self.b, {"attention": name})
            if device != "cpu" and self.arguments.variants == "all":
                for graphs, overlap in itertools.product((True, False), repeat=2):
                    options = {"attention": name, "use_cuda_graph": graphs, "use_async_batching": overlap}
                    self._continuous(self.b, options)

    def run_server(self) -> None:
        """Search the highest Server rate in workload B, as benchmark_target_qps: auto does, with shorter probes."""
        config = self.loaded.model.config
        options = {"attention": kernels.automatic(config, self.arguments.device, self.arguments.dtype)}
        options = self._options(**options)
        with closing(continuous.Engine(self.settings, _fixed(self.b), options)) as engine:
            details = engine.start(self.loaded).details
            workloads.run(engine, self.b.warm_up(max(1, len(self.b.lengths) // 4)), self.until, at_once=True)
            for model, limits in LIMITS.items():
                row = {"workload": "B", "engine": "Server", "attention": details["attention"], "async": limits}
                if time.monotonic() > self.until:
                    self.table.add({**row, "note": "the time was up"})
                    continue
                try:
                    self.table.add({**row, **self._peak(engine, model)})
                except Exception as error:  # a row of its own; the others go on
                    self.table.add({**row, "note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]})

    def _peak(self, engine: continuous.Engine, model: str) -> dict[str, Any]:
        from benchmark.node.interfaces import make_scenario
        from benchmark.node.peak import PeakFinder
        from benchmark.node.progress import Progress
        from benchmark.profiles import Profile

        probe = {"probe_duration_ms": int(self.arguments.probe_s * 1000), "probe_query_count": 1}
        options = {"scenario": "Server", "model": model, "burst_query_count": len(self.b.lengths), **probe}
        names = {"name": "engine", "scenario": "loadgen", "engine": "continuous", "dataset": "synthetic"}
        profile = Profile.model_validate({**names, "version": 1, "scenario_options": options})
        prompts = tuple(query.prompt for query in self.b.queries())
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            finder = PeakFinder(
                engine,
                make_scenario("loadgen", options),
                interfaces.Workload(prompts, None, 0),
                profile,
                place,
                Progress("engine", place),
                self.arguments.probes,
            )
            peak = finder.find(1)
        tried = ", ".join(f"{one.target_qps:g} {'valid' if one.valid else 'too much'}" for one in peak.probes)
        best = max((one for one in peak.probes if one.valid), key=lambda one: one.target_qps, default=None)
        row: dict[str, Any] = {"note": f"QPS {peak.target_qps}; tried {tried}", "peak": peak.model_dump(mode="json")}
        if best is not None and best.qps is not None:
            row |= {
                "tokens/s": best.qps * self.b.output_tokens,
                "TTFT ms": best.ttft_p99_ms,
                "TPOT ms": best.tpot_p99_ms,
            }
        return row

    def _continuous(self, work: Workload, options: dict[str, Any]) -> None:
        options = self._options(**options)

        def all_at_once(until: float) -> tuple[Measured, dict[str, Any]]:
            with closing(continuous.Engine(self.settings, _fixed(work), options)) as engine:
                details = engine.start(self.loaded).details
                # Kernels, graphs and memory settle; other tokens than those that are measured.
                workloads.run(engine, work.warm_up(max(1, len(work.lengths) // 4)), until, at_once=True)
                return workloads.run(engine, work.queries(), until, at_once=True), details

        self._row(work, "continuous", options, all_at_once)

    def _row(
        self,
        work: Workload,
        engine: str,
        options: dict[str, Any],
        measure: Callable[[float], tuple[Measured, dict[str, Any]]],
    ) -> None:
        """Add what `measure` finds by the time that it is given, or why it finds nothing."""
        row: dict[str, Any] = {"workload": work.name, "engine": engine, "options": options}
        row |= {"attention": options.get("attention"), "queries": len(work.lengths)}
        row |= {"graphs": options.get("use_cuda_graph"), "async": options.get("use_async_batching")}
        now = time.monotonic()
        if now > self.until:
            self.table.add({**row, "note": "the time was up"})
            return
        self._forget()
        try:
            measured, details = measure(min(self.until, now + self.arguments.row_s))
            row |= self._values(work, measured, details)
        except Exception as error:  # a row of its own; the others go on
            row["note"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        self.table.add(row)

    def _values(self, work: Workload, measured: Measured, details: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {"details": details, "seconds": measured.seconds, "tokens/s": measured.tokens_per_s}
        values["attention"] = str(details["attention"]).removeprefix("paged|") if details else None
        if graphs := details.get("cuda_graphs"):
            values |= {"graphs": any(graphs.values()), "async": details["async_batching"]}
        if self.floor is not None:
            most = self.floor.tokens_per_s(work.input_tokens, work.output_tokens)
            values["of most"] = f"{measured.tokens_per_s / most:.1%}"
        if measured.first_ns:
            values |= {"TTFT ms": measured.ttft_ms, "TPOT ms": measured.tpot_ms}
        if self.arguments.device != "cpu":
            import torch

            values["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
        ended, notes = len(measured.last_ns), []
        if ended < measured.asked:
            notes.append(f"{ended} of {measured.asked} ended in time")
        if measured.errors:
            notes.append(f"{len(measured.errors)} failed: {measured.errors[0]}")
        return {**values, "note": "; ".join(notes)}

    def _bare(self, until: float, **more: Any) -> Measured:
        import torch

        work, model = self.alone, self.loaded.model
        config = generation_config(self.loaded, _fixed(work), 0, min_new_tokens=work.output_tokens, **more)
        measured = Measured(asked=len(work.lengths))
        for query in [*work.warm_up(2), *work.queries()]:
            if time.monotonic() > until:
                break
            measured.issued_ns[query.index] = now_ns()
            inputs = torch.tensor([query.prompt.token_ids], device=self.arguments.device)
            with torch.inference_mode():
                answer = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
            measured.tokens[query.index] = len(answer[0].tolist()) - inputs.shape[1]
            measured.last_ns[query.index] = now_ns()
        for query in work.warm_up(2):
            for times in (measured.issued_ns, measured.tokens, measured.last_ns):
                times.pop(query.index, None)
        return measured

    def _forget(self) -> None:
        """Free what the row before left, also by an exception."""
        gc.collect()
        if self.arguments.device != "cpu":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _fixed(work: Workload) -> Generation:
    return Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures are of."""
    import torch
    import transformers

    name = "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name(0)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__}
    return {"device": name, "cuda": torch.version.cuda, **versions, "shape": arguments.shape, "dtype": arguments.dtype}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES), help="tiny: for trying the script")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, in order")
    parser.add_argument("--attentions", default=",".join(ATTENTIONS), help="for workload B")
    parser.add_argument("--variants", default="all", choices=["all", "auto"], help="auto: as transformers decides")
    parser.add_argument("--options", default="{}", help="JSON: more options of the continuous engine, for all rows")
    parser.add_argument("--queries-alone", type=int, default=20, help="A, one by one")
    parser.add_argument("--queries-a", type=int, default=512, help="A, all at once")
    parser.add_argument("--queries-b", type=int, default=256, help="B, all at once")
    parser.add_argument(
        "--budget-s", type=float, default=600, help="seconds for all parts; a row ends when they are up"
    )
    parser.add_argument("--row-s", type=float, default=120, help="seconds for one row, its warm-up included")
    parser.add_argument("--probe-s", type=float, default=20, help="seconds of one probe of the Server search")
    parser.add_argument("--probes", type=int, default=6, help="at most so many of them for each of the limits")
    parser.add_argument("--json", type=Path, help="write the table there too, also after each part")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Make the model, run the parts, print."""
    arguments = parse(words)
    os.environ["HF_HUB_OFFLINE"] = "1"
    table = Table(COLUMNS, about(arguments))
    table.say(" ".join(f"{name} {value}" for name, value in table.about.items()))
    began = time.monotonic()
    bench = Bench(arguments, table)
    table.say(f"made {bench.loaded.details['parameters']} parameters in {time.monotonic() - began:.1f} s")
    for part in arguments.parts.split(","):
        try:
            getattr(bench, f"run_{part}")()
        except Exception as error:  # the other parts go on
            table.say(f"{part}: {type(error).__name__}: {error}")
        if arguments.json:
            table.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
