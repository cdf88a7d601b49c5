import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark.errors import SetupError
from benchmark.node.watch import environment
from benchmark.node.watch.environment import require_idle, validate_environment
from benchmark.node.watch.gpu_facts import describe
from benchmark.node.watch.nvml import Driver
from benchmark.records import Gpu
from benchmark.settings import Settings
from tests.unit.node.recorded import recorded_nvml

UUID = "54485266-68ca-b091-258b-7f599bbb073d"
SEEN = Gpu(index=0, name="NVIDIA H100 80GB HBM3", memory_mib=81079, uuid=UUID)
CUDA = Settings(benchmark_model="/nowhere")
CPU = Settings(benchmark_model="/nowhere", benchmark_device="cpu")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NVML with recorded values, and a torch that sees one GPU of two."""
    module = recorded_nvml()
    module.BOARDS.append(module.Board(uuid="GPU-ffffffff-0000-0000-0000-000000000000"))
    module.BOARDS.reverse()  # the driver's order is not the visible one
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(environment, "visible_gpus", lambda version=None: ((SEEN,), "13.0"))
    return module


def test_on_the_cpu_the_node_is_described_without_a_gpu() -> None:
    seen = validate_environment(CPU, "sequential")
    assert seen.cpu_count == len(os.sched_getaffinity(0))
    assert (seen.gpus, seen.nvml) == ((), None)
    assert seen.packages["torch"]
    assert seen.memory_mib > 100
    assert seen.kernel == os.uname().release


def test_cuda_without_a_gpu_never_falls_back() -> None:
    import torch

    if torch.cuda.is_available():
        assert validate_environment(CUDA, "sequential").gpus
        return
    with pytest.raises(SetupError, match=r"build without CUDA|No GPU is usable"):
        validate_environment(CUDA, "sequential")


def test_a_gpu_is_described_as_the_driver_tells(nvml: Any) -> None:
    seen = validate_environment(CUDA, "sequential")
    assert (seen.driver, seen.cuda, seen.cuda_driver, seen.nvml) == ("580.159.04", "13.0", "13.0", None)
    assert seen.gpus == (
        Gpu(
            index=0,
            name="NVIDIA H100 80GB HBM3",
            memory_mib=81079,
            uuid=UUID,
            number=1,
            vbios="96.00.DA.00.0C",
            power_limit_w=700,
            power_limit_default_w=700,
            sm_clock_max_mhz=1980,
            sm_clock_set_mhz=1980,
            memory_clock_max_mhz=2619,
            throttle_reasons=("gpu_idle",),
            ecc=True,
            ecc_corrected=0,
            ecc_uncorrected=0,
            mig=False,
            persistence=True,
            pcie_generation=5,
            pcie_generation_max=5,
            pcie_width=16,
            pcie_width_max=16,
        ),
    )


def test_what_a_gpu_does_not_tell_is_absent(nvml: Any) -> None:
    # As a consumer's GPU: no ECC, no MIG, no application clock; and a driver with only the older name.
    board = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{UUID}")
    refused = ("EccMode", "MigMode", "ApplicationsClock", "TotalEccErrors", "CurrentClocksEventReasons")
    for question in refused:
        delattr(nvml, f"nvmlDeviceGet{question}")
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x44
    (gpu,) = validate_environment(CUDA, "sequential").gpus
    assert (gpu.ecc, gpu.ecc_corrected, gpu.mig, gpu.sm_clock_set_mhz) == (None, None, None, None)
    assert gpu.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert board.uuid.endswith(gpu.uuid)


def test_without_the_driver_the_node_says_why(nvml: Any) -> None:
    nvml.INIT_ERROR = "Driver Not Loaded"
    seen = validate_environment(CUDA, "sequential")
    assert seen.nvml == "NVML does not answer: Driver Not Loaded."
    assert seen.gpus == (SEEN,)
    assert seen.driver is None


def test_without_the_library_the_node_says_why(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py is not installed" in (validate_environment(CUDA, "sequential").nvml or "")


@pytest.fixture
def cotenant(nvml: Any) -> Iterator[int]:
    """A real process of this user's, of which the driver reports that it holds memory on the visible GPU."""
    process = subprocess.Popen(["sleep", "300"])
    while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
        assert process.poll() is None
    board = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{UUID}")
    board.compute.append(nvml.Process(process.pid, 679477248))
    yield process.pid
    process.kill()
    process.wait()


def test_a_cotenant_fails_the_node_by_name(nvml: Any, cotenant: int) -> None:
    seen = validate_environment(CUDA, "sequential")
    with pytest.raises(SetupError) as refused:
        require_idle(CUDA, "sequential", seen)
    first, advice = str(refused.value).splitlines()
    assert first == (
        "GPU 0 (NVIDIA H100 80GB HBM3, GPU 1 of nvidia-smi) is used by another process: sleep of "
        f"{getpass.getuser()}, pid {cotenant}, 648 MiB."
    )
    assert "benchmark_require_idle_gpus: false" in advice


def test_a_program_is_called_as_the_driver_calls_it(nvml: Any) -> None:
    board = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{UUID}")
    board.compute += [nvml.Process(2**22 + 1, None), nvml.Process(2**22 + 2, 2**64 - 1)]
    nvml.PROGRAMS[2**22 + 1] = "/opt/torch/.venv/bin/python3"
    (gpu,) = validate_environment(CUDA, "sequential").gpus
    assert [(one.name, one.user, one.memory_mib) for one in gpu.processes] == [
        ("/opt/torch/.venv/bin/python3", "", None),
        ("", "", None),
    ]


def test_who_may_be_on_the_gpu_is_recorded_and_let_be(nvml: Any, cotenant: int) -> None:
    seen = validate_environment(CUDA, "endpoint")
    assert [one.pid for one in seen.gpus[0].processes] == [cotenant]
    require_idle(CUDA, "endpoint", seen)  # the server that is measured
    require_idle(CUDA.model_copy(update={"benchmark_require_idle_gpus": False}), "sequential", seen)


def test_neither_screen_nor_self_nor_hidden_gpu_counts(nvml: Any) -> None:
    hidden, visible = nvml.BOARDS
    hidden.compute.append(nvml.Process(1, 2**30))
    visible.graphics.append(nvml.Process(1, 4 * 2**20))
    visible.compute.append(nvml.Process(os.getpid(), 2**30))
    seen = validate_environment(CUDA, "sequential")
    assert [(one.pid, one.kind) for one in seen.gpus[0].processes] == [(1, "graphics")]
    require_idle(CUDA, "sequential", seen)


def test_a_mig_slice_has_its_boards_facts(nvml: Any) -> None:
    slice_ = nvml.Board(uuid=f"MIG-{UUID}", answers={("nvmlDeviceGetEnforcedPowerLimit",): 1})
    board = nvml.Board(uuid="GPU-board")
    nvml.BOARDS[:] = [slice_]
    nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = lambda handle: board
    assert describe(Driver(nvml), SEEN).power_limit_w == 700


def test_the_governor_is_that_of_the_cpus_it_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CPUS", tmp_path)
    assert validate_environment(CPU, "sequential").cpu_governor == ""
    for number in os.sched_getaffinity(0):
        directory = tmp_path / f"cpu{number}" / "cpufreq"
        directory.mkdir(parents=True)
        (directory / "scaling_governor").write_text("powersave\n")
    assert validate_environment(CPU, "sequential").cpu_governor == "powersave"


def test_the_compiler_is_the_one_that_kernels_are_built_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert validate_environment(CPU, "sequential").compiler == "none"
    (tmp_path / "clang").write_text("#!/bin/sh\n")
    (tmp_path / "clang").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert validate_environment(CPU, "sequential").compiler == "clang without Python's headers"
    (tmp_path / "Python.h").touch()
    assert validate_environment(CPU, "sequential").compiler == "clang"


def test_the_hashes_are_of_the_model_that_lies_there(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    settings = CPU.model_copy(update={"benchmark_model": str(tmp_path)})
    before = validate_environment(settings, "simulated")
    (tmp_path / "tokenizer.json").write_text("{ }")
    after = validate_environment(settings, "simulated")
    assert before.model_sha256 == after.model_sha256 != ""
    assert before.tokenizer_sha256 != after.tokenizer_sha256
    served = validate_environment(settings, "endpoint")
    assert (served.model_sha256, served.tokenizer_sha256) == ("", "")


def test_the_recorded_library_asks_nothing_more_than_the_real() -> None:
    import pynvml

    recorded = recorded_nvml()
    assert isinstance(recorded, ModuleType)
    names = [name for name in vars(recorded) if name.startswith(("nvml", "NVML"))]
    assert names
    assert not [name for name in names if not hasattr(pynvml, name)]
