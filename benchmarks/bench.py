"""The parts of benchmarks/engine.py that query an engine directly, on one model; each failure is a row."""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmark.node.continuous import attention as kernels
from benchmark.node.engines import continuous, sequential
from benchmark.node.interfaces import Query, now_ns
from benchmark.node.model.generation import generation_config
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import floor, workloads
from benchmarks.shapes import make_on_device
from benchmarks.table import Table
from benchmarks.workloads import Measured, Workload

# Variants besides the automatic options, by `--variants`; `{}` repeats the automatic ones, to show the noise.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "auto": (),
    "all": ({"use_cuda_graph": False}, {"use_async_batching": False}, {"fuse": False}),
    "graphs": ({"graph_tokens": 0}, {"graph_tokens": 2048}, {"graph_tokens": 8192}, {}),
    "sizes": (
        {"page_size": 128},
        {"page_size": 512},
        {"max_requests_per_batch": 256},
        {"max_requests_per_batch": 1024},
        {"max_batch_tokens": 4096},
        {"max_batch_tokens": 16384},
        {"max_blocks_per_request": 16},
        {},
    ),
}
# Options without a column of their own; shown in the note.
NOTED = (
    "fuse",
    "graph_tokens",
    "page_size",
    "max_requests_per_batch",
    "max_batch_tokens",
    "max_blocks_per_request",
)
SDPA: dict[str, Any] = {"attention": "sdpa"}


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
            f"a single query is at least {found.tpot_ms:.2f} ms, and tokens/s are at most {most['A']:.0f} in A and "
            f"{most['B']:.0f} in B",
            copy_gb_s=found.copy_gb_s,
            matmul_tflop_s=found.matmul_tflop_s,
            least_tpot_ms=found.tpot_ms,
            most_tokens_per_s=most,
        )

    def run_sequential(self) -> None:
        """Workload A one by one, and the same through a bare `generate`, to show what measuring costs."""
        kernels.use(self.loaded.model, "sdpa")
        engine = sequential.Engine(self.settings, fixed(self.alone), {})
        engine.start(self.loaded)

        def one_by_one(until: float) -> tuple[Measured, dict[str, Any]]:
            workloads.run(engine, self.alone.warm_up(1), until, at_once=False)
            return workloads.run(engine, self.alone.queries(), until, at_once=False), {"attention": "sdpa"}

        self._row(self.alone, "sequential", {}, one_by_one)
        self._row(self.alone, "bare generate", {}, lambda until: (self._bare(until), SDPA))

    def run_alone(self) -> None:
        """Workload A one by one through `continuous`: the latency of a single query."""
        options = self.options()

        def one_by_one(until: float) -> tuple[Measured, dict[str, Any]]:
            with closing(continuous.Engine(self.settings, fixed(self.alone), options)) as engine:
                details = engine.start(self.loaded).details
                workloads.run(engine, self.alone.warm_up(1), until, at_once=False)
                return workloads.run(engine, self.alone.queries(), until, at_once=False), details

        self._row(self.alone, "one by one", options, one_by_one)

    def run_compiled(self) -> None:
        """Workload A one by one through `generate` with a static cache, which transformers compiles."""
        self._row(self.alone, "compiled", {}, lambda until: (self._bare(until, cache_implementation="static"), SDPA))

    def run_static(self) -> None:
        """Workload A as one batch through `generate`: all prompts have the same length, nothing is padded."""

        def one_batch(until: float) -> tuple[Measured, dict[str, Any]]:
            kernels.use(self.loaded.model, "sdpa")
            self._generate(self.a.warm_up(len(self.a.lengths)), self.a)
            measured = Measured(asked=len(self.a.lengths))
            began = now_ns()
            answers = self._generate(self.a.queries(), self.a)
            for number, answer in enumerate(answers):
                measured.issued_ns[number], measured.last_ns[number] = began, now_ns()
                measured.tokens[number] = len(answer) - self.a.lengths[number]
            return measured, SDPA

        self._row(self.a, "one batch", {}, one_batch)

    def options(self, **options: Any) -> dict[str, Any]:
        """Return the engine's options, overridden by those of the command line."""
        return {**options, **json.loads(self.arguments.options)}

    def run_continuous(self) -> None:
        """Workload A all at once, then B with every attention and every variant."""
        device, dtype, config = self.arguments.device, self.arguments.dtype, self.loaded.model.config
        self._continuous(self.a, {"attention": kernels.automatic(config, device, dtype)})
        for name in self.arguments.attentions.split(","):
            if reason := kernels.missing(name, config, device, dtype):
                self.table.add(
                    {"workload": "B", "engine": "continuous", "attention": name, "note": f"not here: {reason}"}
                )
                continue
            self._continuous(self.b, {"attention": name})
            if device != "cpu":
                for changed in VARIANTS[self.arguments.variants]:
                    self._continuous(self.b, {"attention": name, **changed})

    def _continuous(self, work: Workload, options: dict[str, Any]) -> None:
        options = self.options(**options)

        def all_at_once(until: float) -> tuple[Measured, dict[str, Any]]:
            with closing(continuous.Engine(self.settings, fixed(work), options)) as engine:
                details = engine.start(self.loaded).details
                # Let kernels, graphs and memory settle, with other tokens than the measured ones.
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
        """Add a row with the result of `measure(deadline)`, or the reason why there is none."""
        row: dict[str, Any] = {"workload": work.name, "engine": engine, "options": options}
        row |= {"attention": options.get("attention"), "queries": len(work.lengths)}
        row |= {"graphs": options.get("use_cuda_graph"), "async": options.get("use_async_batching")}
        now = time.monotonic()
        if now > self.until:
            self.table.add({**row, "note": "time limit reached"})
            return
        self.forget()
        try:
            measured, details = measure(min(self.until, now + self.arguments.row_s))
            row |= self._values(work, measured, details, options)
        except Exception as error:  # becomes a row; the others go on
            row["note"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        self.table.add(row)

    def _values(
        self, work: Workload, measured: Measured, details: dict[str, Any], given: dict[str, Any]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {"details": details, "seconds": measured.seconds, "tokens/s": measured.tokens_per_s}
        values["attention"] = str(details["attention"]).removeprefix("paged|") if details else None
        if graphs := details.get("cuda_graphs"):
            values |= {"graphs": any(graphs.values()), "async": details["async_batching"]}
        values |= self.of_most(work, measured.tokens_per_s)
        if measured.first_ns:
            values |= {"TTFT ms": measured.ttft_ms, "TPOT ms": measured.tpot_ms}
        if self.arguments.device != "cpu":
            import torch

            values["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
        ended = len(measured.last_ns)
        notes = [f"{name} {given[name]}" for name in NOTED if name in given]
        if ended < measured.asked:
            notes.append(f"{ended} of {measured.asked} ended in time")
        if measured.errors:
            notes.append(f"{len(measured.errors)} failed: {measured.errors[0]}")
        return {**values, "note": "; ".join(notes)}

    def _bare(self, until: float, **more: Any) -> Measured:
        kernels.use(self.loaded.model, "sdpa")
        work, measured = self.alone, Measured(asked=len(self.alone.lengths))
        for query in work.warm_up(2):
            self._generate([query], work, **more)
        for query in work.queries():
            if time.monotonic() > until:
                break
            measured.issued_ns[query.index] = now_ns()
            answer = self._generate([query], work, **more)[0]
            measured.tokens[query.index] = len(answer) - work.lengths[query.index]
            measured.last_ns[query.index] = now_ns()
        return measured

    def _generate(self, queries: list[Query], work: Workload, **more: Any) -> list[list[int]]:
        """Return `generate`'s answers to queries of the same length, each including its prompt."""
        import torch

        config = generation_config(self.loaded, fixed(work), 0, min_new_tokens=work.output_tokens, **more)
        inputs = torch.tensor([query.prompt.token_ids for query in queries], device=self.arguments.device)
        with torch.inference_mode():
            answers = self.loaded.model.generate(
                inputs, attention_mask=torch.ones_like(inputs), generation_config=config
            )
        tokens: list[list[int]] = answers.tolist()
        return tokens

    def of_most(self, work: Workload, tokens_per_s: float) -> dict[str, str]:
        """Return the rate as a share of the ceiling; empty if the ceiling is unknown."""
        if self.floor is None:
            return {}
        return {"of most": f"{tokens_per_s / self.floor.tokens_per_s(work.input_tokens, work.output_tokens):.1%}"}

    def forget(self) -> None:
        """Free the GPU memory of the previous row, even if it ended with an exception."""
        gc.collect()
        if self.arguments.device != "cpu":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def fixed(work: Workload) -> Generation:
    """Return settings that give every answer of a workload its full length."""
    return Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)
