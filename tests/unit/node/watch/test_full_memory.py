"""A GPU whose memory is full is reported with what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.errors import BenchmarkError, RunError, SetupError
from benchmark.node.engines import simulated
from benchmark.node.model import load as model
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.run import RunRequest, run
from benchmark.node.watch.full_memory import explain
from benchmark.resolve import resolve
from benchmark.settings import Settings

# As torch 2.13 says it, on the GPU of a node.
SAID = (
    "CUDA out of memory. Tried to allocate 1002.00 MiB. GPU 0 has a total capacity of 23.50 GiB of which 310.06 MiB is "
    "free. Process 4242 has 22.95 GiB memory in use. Of the allocated memory 22.60 GiB is allocated by PyTorch, and "
    "60.11 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)

# As CUDA itself says it, through torch 2.11: where another process has taken the rest since, seen on a GPU.
DRIVER_SAID = """CUDA error: out of memory
Search for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""  # noqa: E501 # verbatim


def settings(**changes: object) -> Settings:
    return resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", **changes}).settings


def test_what_is_no_matter_of_memory_is_left_alone() -> None:
    assert explain("Nothing is full.", settings(), "sequential") == "Nothing is full."


@pytest.mark.parametrize(
    ("engine", "dtype", "fits"),
    [
        ("continuous", "float16", "lower max_memory_percent or max_batch_tokens"),
        ("sequential", "float16", "fewer max_new_tokens"),
        ("sequential", "float32", "benchmark_dtype: float16 needs half as much"),
    ],
)
def test_it_says_what_would_fit(engine: str, dtype: str, fits: str) -> None:
    reported = explain(f"The warm-up failed: OutOfMemoryError: {SAID}", settings(benchmark_dtype=dtype), engine)
    assert reported.startswith(
        "The GPU's memory is full (CUDA out of memory. Tried to allocate 1002.00 MiB. GPU 0 has a"
    )
    assert "310.06 MiB is free)" in reported
    assert "PYTORCH_CUDA_ALLOC_CONF" not in reported
    assert fits in reported
    assert "A smaller benchmark_model" in reported


@pytest.mark.parametrize(
    "said", [SAID, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1073741824 bytes"]
)
def test_a_server_that_we_start_has_options_of_its_own(said: str) -> None:
    """It takes a share of the memory for its cache, and our own engines' replicas and KV cache are none of its."""
    reported = explain(f"vLLM ended with exit code 1. RuntimeError: {said}", settings(), "vllm")
    fits = "Lower gpu_memory_utilization, max_model_len or max_num_seqs, or raise tensor_parallel_size, in"
    assert f"{fits} benchmark_engine_options." in reported
    assert "benchmark_replicas" not in reported
    assert "max_new_tokens" not in reported


@pytest.mark.parametrize("said", [DRIVER_SAID, "Triton Error [CUDA]: out of memory"])
def test_what_the_driver_says_is_reported_without_advice(said: str) -> None:
    reported = explain(f"The warm-up failed: AcceleratorError: {said}", settings(), "sequential")
    assert reported.startswith(f"The GPU's memory is full ({said.splitlines()[0]}). End whatever else uses the GPU")
    assert "CUDA_LAUNCH_BLOCKING" not in reported


def test_while_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr(simulated.Engine, "submit", full)
    request = RunRequest("r1", "jw2", resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu"}), tmp_path)
    with pytest.raises(RunError, match="The GPU's memory is full"):
        run(request)
    (path,) = tmp_path.glob("mlperf_datacenter_jw2_*.json")
    assert "A smaller benchmark_model" in path.read_text()
    assert '"stage": "warm-up"' in path.read_text()


def test_while_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_model(tmp_path / "model")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    asked = settings(benchmark_model=str(tmp_path / "model"), benchmark_dtype="float32")
    with pytest.raises(SetupError) as caught:
        model.load_model(asked)
    assert "A smaller benchmark_model" in explain(str(caught.value), asked, "sequential")


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "header"])
def test_damaged_weights_are_named_before_loading(tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "model"
    make_tiny_model(directory)
    (weights,) = directory.glob("*.safetensors")
    whole = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(
            {"cut": whole[: len(whole) // 2], "empty": b"", "header": b"\xff" * 16 + whole[16:]}[damage]
        )
    asked = settings(benchmark_model=str(directory), benchmark_dtype="float32")
    with pytest.raises(BenchmarkError) as caught:
        model.load_model(asked)
    reported = "holds no model.safetensors" if damage == "missing" else f"{weights} is damaged"
    assert reported in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("MemoryError: ", "(MemoryError)"),
        (
            "The warm-up failed: MemoryError: Unable to allocate 8.00 GiB for an array",
            "(MemoryError: Unable to allocate",
        ),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)",
            "tried to allocate 40000000000 bytes)",
        ),
        ("Cannot allocate memory: /x/model.safetensors.", "(Cannot allocate memory: /x/model.safetensors)"),
        ("RuntimeError: std::bad_alloc", "(std::bad_alloc)"),
    ],
)
def test_the_memory_of_the_node_may_be_full_too(said: str, kept: str) -> None:
    asked = settings(benchmark_engine="continuous", benchmark_dtype="float32", benchmark_replicas=2)
    reported = explain(said, asked, "continuous")
    assert reported.startswith("The node's memory is full (")
    assert kept in reported
    assert "Fewer benchmark_replicas" in reported
    assert "benchmark_dtype: bfloat16 needs half as much" in reported
    assert "GPU" not in reported


def test_what_torch_really_says_of_the_nodes_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert explain(str(caught.value), settings(), "sequential").startswith("The node's memory is full (DefaultCPUAll")
