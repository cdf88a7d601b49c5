"""The parts of benchmarks/engine.py that LoadGen drives, and those that analyse a step."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import tempfile
import time
import unittest.mock
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmark.node import interfaces, measuring
from benchmark.node.continuous import attention as kernels
from benchmark.node.engines import continuous
from benchmark.node.model.load import load_model
from benchmark.node.peak import PeakFinder
from benchmark.node.progress import ProgressWriter
from benchmark.node.registry import make_scenario
from benchmark.profiles import Generation, Profile
from benchmark.settings import Settings
from benchmarks import split, start, workloads
from benchmarks.bench import Bench, fixed
from benchmarks.loadgen_overhead import driven
from benchmarks.shapes import make_on_device, write_model

# MLPerf's limits of Server and Interactive in ms (TTFT/TPOT), by LoadGen's name of the model.
LIMITS = {"llama3_1-8b": "2000/100", "llama3_1-8b-interactive": "500/30"}

# Ways to load, with the number of our own reader threads; 0: transformers maps the files and reads with its own.
LOADING = {"mapped, one thread": 0, "mapped": 0, "1 reader": 1, "4 readers": 4, "8 readers": 8}
# Environment variable that makes transformers read with one thread.
SEQUENTIAL = "HF_DEACTIVATE_ASYNC_LOAD"


class DrivenBench(Bench):
    """All parts."""

    def run_check(self) -> None:
        """Run the start's cross-check of answers with the plain model, for every way to run `continuous`."""
        ways: list[dict[str, Any]] = [{}, {"fuse": False}, {"use_cuda_graph": False}, {"use_async_batching": False}]
        if self.arguments.device == "cpu":
            ways = [{}, {"attention": "sdpa"}]
        for way in ways:
            self.forget()
            with closing(continuous.Engine(self.settings, fixed(self.a), self.options(**way))) as engine:
                details = engine.start(self.loaded).details
            found = {name: details[name] for name in ("cross_check", "startup_s", "memory")}
            self.table.say(f"check {json.dumps(way)}: {found['cross_check']}", **{f"check {json.dumps(way)}": found})

    def run_load(self) -> None:
        """Write the model to files, read it in every way, cold and warm, and start both engines on it."""
        with tempfile.TemporaryDirectory(dir=self.arguments.directory) as name:
            directory, arguments = Path(name), self.arguments
            # Like Llama's own files, whatever precision they are loaded in.
            source = self.loaded.model
            if arguments.dtype != "bfloat16":
                source = make_on_device(arguments.shape, "bfloat16", arguments.device).model
            files = write_model(source, directory)
            del source
            size = sum(path.stat().st_size for path in files)
            settings = self.settings.model_copy(update={"benchmark_model": str(directory)})
            for place, way in itertools.product(("from the disk", "cached"), LOADING):
                self.forget()
                if place == "from the disk":
                    start.forget_cached(files)
                with unittest.mock.patch.dict(os.environ, {SEQUENTIAL: str(int(way == "mapped, one thread"))}):
                    taken = _load(settings, LOADING[way])
                title = f"load {place}, {way}"
                self.table.say(
                    f"{title}: {size / 1e9:.2f} GB in {len(files)} files in {taken['load_s']:.2f} s, {taken}",
                    **{title: taken},
                )
            for engine in arguments.starts.split(","):
                self.forget()
                options = self.options() if engine == "continuous" else {}
                details = start.start_apart(settings, engine, options)
                reported = {**details["startup_s"], "age_s": details["age_s"]}
                self.table.say(f"start of {engine}: {reported}", **{f"start of {engine}": reported})

    def run_split(self) -> None:
        """Split the time of a step of workload B, of A, and of a single query."""
        for name, work, at_once in (("B", self.b, True), ("A", self.a, True), ("alone", self.alone, False)):
            self.forget()
            with closing(continuous.Engine(self.settings, fixed(work), self.options())) as engine:
                engine.start(self.loaded)
                workloads.run(engine, work.warm_up(max(1, len(work.lengths) // 4)), self.until, at_once)
                for gpu in (False, True) if self.arguments.device != "cpu" else (False,):
                    with split.watch(engine, gpu) as found:
                        workloads.run(engine, work.queries(), self.until, at_once)
                    title = f"split {name}{', profiled' if gpu else ''}"
                    self.table.say(f"{title}: {found.sentence()}", **{title: dataclasses.asdict(found)})

    def run_harness(self) -> None:
        """Workload B with and without LoadGen's Offline scenario, alternating, to show what measuring costs."""
        self.forget()
        bare, through = [], []
        with closing(continuous.Engine(self.settings, fixed(self.b), self.options())) as engine:
            engine.start(self.loaded)
            workloads.run(engine, self.b.warm_up(max(1, len(self.b.lengths) // 4)), self.until, at_once=True)
            for _ in range(self.arguments.rounds):
                bare.append(workloads.run(engine, self.b.queries(), self.until, at_once=True).tokens_per_s)
                through.append(driven(engine, self.b))
        ratio = sum(through) / sum(bare)
        self.table.say(
            f"harness: through LoadGen {ratio:.1%} of the tokens/s without it ({len(bare)} alternating rounds: "
            + ", ".join(f"{one:.0f} and {other:.0f}" for one, other in zip(through, bare, strict=True))
            + ")",
            harness={"through_loadgen": through, "bare": bare},
        )

    def run_least(self) -> None:
        """Check min_new_tokens on a model that would end every answer at once; then measure its cost in workload B."""
        config = self.loaded.model.generation_config
        own = config.eos_token_id
        config.eos_token_id = sorted({answer[0] for answer in self._answers(0).values()})
        for least in (0, 1, 4):
            answers = self._answers(least).values()
            early = sum(bool(set(answer[:least]) & set(config.eos_token_id)) for answer in answers)
            lengths = sorted({len(answer) for answer in answers})
            self.table.say(
                f"min_new_tokens {least}: {early} of {len(answers)} answers ended too soon; of {lengths} tokens",
                **{f"min_new_tokens {least}": {"too soon": early, "lengths": lengths}},
            )
        config.eos_token_id = own
        rates: dict[int, list[float]] = {0: [], 1: []}
        for least in [*rates] * self.arguments.rounds:
            generation = Generation(max_new_tokens=self.b.output_tokens, min_new_tokens=least)
            rates[least].append(self._least(self.b, generation).tokens_per_s)
        ratio = sum(rates[1]) / sum(rates[0])
        self.table.say(
            f"min_new_tokens 1 in B: {ratio:.1%} of the tokens/s with 0 ({self.arguments.rounds} alternating rounds: "
            + ", ".join(f"{one:.0f} and {none:.0f}" for none, one in zip(*rates.values(), strict=True))
            + ")",
            least={"tokens/s": rates, "ratio": ratio},
        )

    def _answers(self, least: int) -> dict[int, tuple[int, ...]]:
        return self._least(self.a, Generation(max_new_tokens=self.a.output_tokens, min_new_tokens=least)).token_ids

    def _least(self, work: workloads.Workload, generation: Generation) -> workloads.Measured:
        self.forget()
        with closing(continuous.Engine(self.settings, generation, self.options())) as engine:
            engine.start(self.loaded)
            workloads.run(engine, work.warm_up(max(1, len(work.lengths) // 4)), self.until, at_once=True)
            return workloads.run(engine, work.queries(), self.until, at_once=True)

    def run_server(self) -> None:
        """Search for the highest Server rate in workload B as `benchmark_target_qps: auto` does, with shorter probes.

        With --rates, try those rates until one is valid instead.
        """
        config = self.loaded.model.config
        options = self.options(attention=kernels.automatic(config, self.arguments.device, self.arguments.dtype))
        self.forget()
        with closing(continuous.Engine(self.settings, fixed(self.b), options)) as engine:
            details = engine.start(self.loaded).details
            workloads.run(engine, self.b.warm_up(max(1, len(self.b.lengths) // 4)), self.until, at_once=True)
            for model, limits in LIMITS.items():
                row = {"workload": "B", "engine": "Server", "attention": details["attention"], "async": limits}
                if self.arguments.limits not in ("all", limits):
                    continue
                if time.monotonic() > self.until:
                    self.table.add({**row, "note": "time limit reached"})
                    continue
                try:
                    self.table.add({**row, **self._served(engine, model)})
                except Exception as error:  # becomes a row; the others go on
                    self.table.add({**row, "note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]})

    def _served(self, engine: continuous.Engine, model: str) -> dict[str, Any]:
        probe = {"probe_duration_ms": int(self.arguments.probe_s * 1000), "probe_query_count": 1}
        options = {"scenario": "Server", "model": model, "burst_query_count": len(self.b.lengths), **probe}
        names = {"name": "engine", "scenario": "loadgen", "engine": "continuous", "dataset": "synthetic"}
        profile = Profile.model_validate({**names, "version": 1, "scenario_options": options})
        prompts = tuple(query.prompt for query in self.b.queries())
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            workload, scenario = interfaces.Workload(prompts, None, 0), make_scenario("loadgen", options)
            bench = measuring.Bench(engine, scenario, workload, profile, place, ProgressWriter("engine", place))
            finder = PeakFinder(bench, self.arguments.probes)
            if self.arguments.rates:
                probes = []
                for rate in self.arguments.rates.split(","):
                    with split.watch(engine, gpu=False) as found:
                        probes.append(finder.probe(float(rate)))
                    title = f"Server at {rate} queries/s, {LIMITS[model]}"
                    self.table.say(f"{title}: {found.sentence()}", **{title: dataclasses.asdict(found)})
                    if probes[-1].valid:
                        break
            else:
                probes = list(finder.find(1).probes)
        tried = ", ".join(f"{one.target_qps:g} {'valid' if one.valid else 'over the limits'}" for one in probes)
        best = max((one for one in probes if one.valid), key=lambda one: one.target_qps, default=None)
        row: dict[str, Any] = {
            "queries": len(prompts),
            "note": f"QPS {best.target_qps if best else None}; tried {tried}, {self.arguments.probe_s:g} s each",
            "probes": [one.model_dump(mode="json") for one in probes],
        }
        shown = best or probes[-1]
        if shown.qps is not None:
            row |= {"TTFT ms": shown.ttft_p99_ms, "TPOT ms": shown.tpot_p99_ms}
        if best is not None and best.qps is not None:
            row |= {"tokens/s": best.qps * self.b.output_tokens}
            row |= self.of_most(self.b, best.qps * self.b.output_tokens)
        return row


def _load(settings: Settings, readers: int) -> dict[str, float]:
    """Load the model, discard it, and return the seconds of each stage; `load_s` is the total."""
    began = time.monotonic()
    details: Any = load_model(settings, readers).details
    return {**details["startup_s"], "load_s": round(time.monotonic() - began, 3)}
