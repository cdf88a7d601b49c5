"""Runs of the simulated engine in virtual time: its own waits, the real recorder and files, and no waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.files import write_record
from benchmark.node import interfaces, recorder
from benchmark.node.datasets.curated import prompts
from benchmark.node.engines import simulated
from benchmark.node.interfaces import Conditions, Workload
from benchmark.node.recorder import Recorder
from benchmark.node.scenarios.closed_loop import Scenario
from benchmark.profiles import Generation
from benchmark.records import RunRecord, Sample
from benchmark.rundir import RUN_FILE
from benchmark.settings import Settings
from tests.unit.building import asked, make_run, result_of, write_node

SHORT = Generation(max_new_tokens=16, min_new_tokens=16)


class Clock:
    """A clock that is moved on by whoever waits; stands for `now_ns` and for the engine's timer."""

    def __init__(self) -> None:
        self.ns = 10**9

    def now_ns(self) -> int:
        return self.ns

    def at(self, at_ns: int, call: Callable[[], None]) -> None:
        self.ns = max(self.ns, at_ns)
        call()

    def stop(self) -> None:
        pass


def samples(
    monkeypatch: pytest.MonkeyPatch, seed: str, count: int, slowdown: float = 1, **options: Any
) -> list[Sample]:
    """Return what the recorder made of `count` queries in a closed loop."""
    clock = Clock()
    with monkeypatch.context() as patch:
        for module in (interfaces, recorder, simulated):
            patch.setattr(module, "now_ns", clock.now_ns)
        patch.setattr(simulated, "Timer", lambda: clock)
        patch.setenv(simulated.SEED, seed)
        patch.setenv(simulated.SLOWDOWN, str(slowdown))
        engine = simulated.Engine(Settings(), SHORT, options)
        engine.load()
        made = Recorder(engine, None, clock.ns, lambda sample, done: None)
        Scenario({}).run(Workload(prompts(), count, 0), made, Conditions(Path(), 1))
    return made.samples


def add_run(
    results: Path, run_id: str, nodes: dict[str, list[Sample]], settings: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a run of nodes with these samples; `changes` are of their results."""
    resolved = asked(len(next(iter(nodes.values()))), {"generation": SHORT.model_dump()}, **(settings or {}))
    directory = make_run(results / run_id, dict.fromkeys(nodes, resolved))
    record = RunRecord.model_validate_json((directory / RUN_FILE).read_text())
    write_record(directory / RUN_FILE, record.model_copy(update={"run_id": run_id}))
    for node, each in nodes.items():
        write_node(directory, result_of(node, resolved, each, **{"run_id": run_id, **changes}), each)
    return directory
