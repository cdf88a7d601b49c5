"""Which engine answers: the profile's, or the one in its place where that cannot serve; never in silence."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmark.continuous_options import Options
from benchmark.errors import BenchmarkError, InputError, SetupError, Unfit
from benchmark.node import loading
from benchmark.node.continuous import attention
from benchmark.node.interfaces import Demands
from benchmark.node.loading import load_engine
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.replicas import Replicated
from benchmark.node.run import RunRequest, run
from benchmark.profiles import Generation, load_profile
from benchmark.records import EngineInfo, NodeResult
from benchmark.resolve import resolve
from benchmark.settings import ResolvedSettings, Settings
from benchmark.text.node_result import render_node
from tests import architectures

CPU: dict[str, Any] = {
    "benchmark_device": "cpu",
    "benchmark_dtype": "float32",
    "benchmark_telemetry": False,
    "benchmark_probes": "off",
}


def measure(directory: Path, model: Path, **settings: Any) -> NodeResult:
    """Run quick with few and short answers; it is the same otherwise."""
    base = resolve({**CPU, "benchmark_model": str(model), **settings})
    generation = {**base.profile.generation.model_dump(), "max_new_tokens": 4, "min_new_tokens": 4}
    short = {"samples": 3, "warmup": 1, "generation": generation}
    asked = ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **short}}
    )
    directory.mkdir()
    return run(RunRequest("r1", "jw2", asked, directory))


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that keeps a state from token to token: continuous batching cannot serve it."""
    directory = tmp_path_factory.mktemp("models")
    make_tiny_model(directory / "tokenizer")
    architectures.save("mamba2", directory / "mamba", directory / "tokenizer")
    return directory / "mamba"


def test_quick_falls_back_to_sequential_and_says_so(tmp_path: Path, mamba: Path) -> None:
    result = measure(tmp_path / "run", mamba)
    assert result.status == "complete"
    assert result.engine is not None
    assert (result.engine.name, result.engine.details["instead_of"]) == ("sequential", "continuous")
    assert "(Mamba2ForCausalLM) is not for the engine continuous" in str(result.engine.details["because"])
    assert result.accuracy is not None
    assert len(result.accuracy.greedy) == 4
    text = " ".join(render_node(result).split())
    assert "sequential, 1 replica; sequential answered instead of continuous: This architecture" in text


def test_asked_for_by_name_no_other_engine_answers(tmp_path: Path, mamba: Path) -> None:
    with pytest.raises(Unfit, match="take vllm or endpoint, or sequential"):
        measure(tmp_path / "run", mamba, benchmark_engine="continuous")
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_where_the_fallback_fails_too_both_reasons_are_given(mamba: Path) -> None:
    settings = Settings(benchmark_device="cpu", benchmark_dtype="float32", benchmark_model=str(mamba))
    profile = load_profile("quick").model_copy(update={"fallback_engine": "endpoint"})
    said = r"The engine is endpoint and there is none.* \(endpoint is to answer instead of continuous: This arch"
    with ExitStack() as stack, pytest.raises(InputError, match=said):
        load_engine(profile, settings, lambda engine: None, stack)


class Part:
    """Of a model: one knows the other."""

    other: Part


def test_a_loaded_model_is_let_go_before_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some models show only by their first steps that they do not fit: two of them would not fit into a GPU."""
    held: list[weakref.ref[Part]] = []
    info = EngineInfo(name="sequential", details={})

    class Loaded:
        def load(self) -> EngineInfo:
            self.model = Part()
            self.model.other = Part()
            self.model.other.other = self.model
            held.append(weakref.ref(self.model))
            raise Unfit("Its steps wait for the GPU.")

        def close(self) -> None:
            """Nothing."""

    def second() -> EngineInfo:
        assert held[0]() is None
        return info

    engines: dict[str, Callable[[], Any]] = {"continuous": Loaded, "sequential": lambda: Mock(load=second)}
    monkeypatch.setattr(loading, "make_engine", lambda name, *about: engines[name]())
    with ExitStack() as stack:
        _, found = load_engine(load_profile("quick"), Settings(benchmark_model="/none"), lambda engine: None, stack)
    assert found.details == {"instead_of": "continuous", "because": "Its steps wait for the GPU."}


@pytest.mark.parametrize(
    ("demands", "error", "said"),
    [
        (Demands(), Unfit, "^This architecture .* is not for the engine continuous"),
        (Demands(ids=True, highest_id=9999), InputError, "^The dataset's prompts have token ids up to 9999, and the"),
    ],
)
def test_a_replica_refuses_as_one_engine_does(
    mamba: Path, demands: Demands, error: type[BenchmarkError], said: str
) -> None:
    settings = Settings(benchmark_device="cpu", benchmark_dtype="float32", benchmark_model=str(mamba))
    with closing(Replicated("continuous", settings, Generation(), {}, 1, None)) as engine:
        engine.demands = demands
        with pytest.raises(error, match=said):
            engine.load()


def test_on_a_gpu_quick_wants_steps_that_are_cuda_graphs() -> None:
    """This machine has no GPU, and so no attention whose steps could be graphs: as a GPU that is too old for it."""
    quick = Options.model_validate(load_profile("quick").engine_options)
    config = architectures.model("llama").config
    with pytest.raises(Unfit, match=r"no attention here whose steps can be CUDA graphs \(paged_flash: its kernels"):
        attention.choose(quick, config, "cuda", "float16")
    assert attention.choose(quick, config, "cpu", "float32") == "paged|eager"
    assert attention.choose(Options(), config, "cuda", "float16") == "sdpa"
    with pytest.raises(SetupError, match="flash_attention_2 is not available"):
        attention.choose(Options(attention="flash_attention_2"), config, "cuda", "float16")


def test_nothing_in_quick_needs_a_compiler() -> None:
    options = Options.model_validate(load_profile("quick").engine_options)
    assert (options.fuse, options.require_cuda_graph) == (None, True)


def test_quick_generate_is_what_quick_was() -> None:
    now, before = load_profile("quick"), load_profile("quick-generate")
    assert (before.engine, before.engine_options, before.fallback_engine) == ("sequential", {}, "")
    apart = {"name", "version", "description", "engine", "engine_options", "fallback_engine", "limits"}
    assert now.model_dump(exclude=apart) == before.model_dump(exclude=apart)


def test_a_profile_without_a_fallback_keeps_its_hash() -> None:
    assert "fallback_engine" not in load_profile("mlperf-server").model_dump(mode="json")
    # By name no other engine is taken, even where the profile has one.
    assert resolve({"benchmark_engine": "continuous"}).profile.fallback_engine == ""
    assert resolve({}).profile.fallback_engine == "sequential"
