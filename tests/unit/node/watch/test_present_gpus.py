"""A GPU that the run is to use and that is not there is named; it is never merely one fewer."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmark.errors import SetupError
from benchmark.node.watch import environment
from benchmark.node.watch.environment import validate_environment
from benchmark.records import Gpu
from benchmark.settings import Settings
from tests.unit.node.recorded import recorded_nvml

CUDA = Settings(benchmark_model="/nowhere")


def uuid(number: int) -> str:
    return f"{number}0000000-68ca-b091-258b-7f599bbb073d"


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Eight GPUs, of which torch sees those whose numbers are in `seen`."""
    module: Any = recorded_nvml()
    module.BOARDS[:] = [module.Board(uuid=f"GPU-{uuid(number)}") for number in range(8)]
    module.seen = list(range(8))
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def visible(version: str | None = None) -> tuple[tuple[Gpu, ...], str]:
        gpus = (Gpu(index=i, name="NVIDIA A30", memory_mib=24576, uuid=uuid(n)) for i, n in enumerate(module.seen))
        return tuple(gpus), "13.0"

    monkeypatch.setattr(environment, "visible_gpus", visible)
    return module


def fail(node: Any, question: str, index: int, words: str, value: int) -> None:
    """Have the driver refuse a question about one GPU."""
    plain = getattr(node, question)

    def ask(board: Any) -> Any:
        if board in (index, node.BOARDS[index]):
            error = node.NVMLError(words)
            error.value = value
            raise error
        return plain(board)

    setattr(node, question, ask)


def test_all_that_are_there_are_measured(node: Any) -> None:
    assert len(validate_environment(CUDA, "sequential").gpus) == 8


@pytest.mark.parametrize("question", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo"])
def test_one_in_error_is_named(node: Any, question: str) -> None:
    node.seen.remove(3)
    fail(node, question, 3, "GPU is lost", 15)
    with pytest.raises(SetupError) as caught:
        validate_environment(CUDA, "sequential")
    reported = str(caught.value)
    assert reported.startswith("GPU 3")
    assert "is not usable: the driver says GPU is lost." in reported
    assert "The driver lists 8 GPUs but torch sees 7." in reported


def test_memory_that_is_shared_with_the_cpu_is_no_error(node: Any) -> None:
    fail(node, "nvmlDeviceGetMemoryInfo", 3, "Not Supported", 3)
    assert len(validate_environment(CUDA, "sequential").gpus) == 8


def test_one_that_torch_does_not_see_is_named(node: Any) -> None:
    node.seen.remove(5)
    with pytest.raises(SetupError, match=rf"GPU 5 \(NVIDIA H100 80GB HBM3, GPU-{uuid(5)}\) is not usable: torch does"):
        validate_environment(CUDA, "endpoint")


def test_one_that_was_not_asked_for_may_be_lost(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    node.seen[:] = [0, 1, 2]
    fail(node, "nvmlDeviceGetHandleByIndex", 3, "GPU is lost", 15)
    assert len(validate_environment(CUDA, "sequential").gpus) == 3


def test_fewer_than_asked_for_are_a_failure(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")
    node.seen[:] = [0, 1]
    fail(node, "nvmlDeviceGetHandleByIndex", 3, "GPU is lost", 15)
    with pytest.raises(SetupError, match=r"(?s)GPU 3 has an error.*lists 3 GPUs \(0, 1, 3\), but torch sees 2\."):
        validate_environment(CUDA, "sequential")


def test_of_several_slices_cuda_shows_one(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1111,MIG-2222")
    node.seen[:] = [0]
    with pytest.raises(
        SetupError, match=r"lists 2 GPUs .*, but torch sees 1\. CUDA shows a process only one MIG slice"
    ):
        validate_environment(CUDA, "sequential")


def test_what_cuda_leaves_out_is_printed(
    node: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
    node.seen[:] = [0]
    validate_environment(CUDA, "sequential")
    assert "'-1' is negative, and so CUDA ignores the rest" in capsys.readouterr().err


def test_other_jobs_gpus_are_not_missed(node: Any) -> None:
    node.seen.remove(7)
    fail(node, "nvmlDeviceGetHandleByIndex", 7, "Insufficient Permissions", 4)
    assert len(validate_environment(CUDA, "sequential").gpus) == 7


def test_of_a_gpu_in_mig_mode_torch_sees_slices(node: Any) -> None:
    node.BOARDS[0].answers[("nvmlDeviceGetMigMode",)] = [1, 1]
    node.seen[:] = [0]
    validate_environment(CUDA, "sequential")
