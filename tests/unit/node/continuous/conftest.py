"""What tests of the engine continuous share: a tiny Llama on the CPU, and its right answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmark.node.continuous import attention, exact_attention, flash, flash_kernels
from benchmark.node.engines import continuous, sequential
from benchmark.node.model.load import LoadedModel, load_model
from benchmark.node.model.tiny import make_tiny_model
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings
from tests.unit.node.continuous.asked import GREEDY, QUERIES, Make
from tests.unit.node.heard import Heard


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    return Settings(benchmark_model=str(directory), benchmark_device="cpu", benchmark_dtype="float32")


@pytest.fixture(scope="session")
def loaded(settings: Settings) -> LoadedModel:
    return load_model(settings)


@pytest.fixture(scope="session")
def one_at_a_time(settings: Settings) -> dict[int, tuple[int, ...]]:
    """The right answers, of a model of its own: one that was batched attends over pages from then on."""
    engine, heard = sequential.Engine(settings, GREEDY, {}), Heard()
    engine.load()
    for query in QUERIES:
        engine.submit(query, heard)
    return heard.tokens


@pytest.fixture
def make(settings: Settings, loaded: LoadedModel) -> Iterator[Make]:
    made: list[continuous.Engine] = []

    def start(generation: Generation = GREEDY, **options: Any) -> tuple[continuous.Engine, EngineInfo]:
        made.append(continuous.Engine(settings, generation, options))
        return made[-1], made[-1].start(loaded)

    yield start
    for engine in made:
        engine.close()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All around the kernels, which are for GPUs, runs here: exact attention in their place, on pages of all sizes."""
    kernels = flash.Kernels("exact", exact_attention.answer, exact_attention.read, flash_kernels.torchs_write)
    monkeypatch.setattr(flash_kernels, "choose", lambda *about: kernels)
    monkeypatch.setattr(flash_kernels, "PAGE_MULTIPLE", 1)
    monkeypatch.setattr(attention, "missing", lambda *about: None)
