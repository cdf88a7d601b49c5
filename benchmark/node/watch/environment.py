"""Describe the node, and check that it is fit to run."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from benchmark import installed
from benchmark.errors import SetupError
from benchmark.importing import importing
from benchmark.node.hub.prepared import tokenizer_sha256
from benchmark.node.model.hash import weights_sha256
from benchmark.node.model.load import find_snapshot
from benchmark.node.serving.provisioned import packages
from benchmark.node.watch.gpu_facts import describe, processes
from benchmark.node.watch.nvml import NoDriver, driver
from benchmark.node.watch.present_gpus import REMEDY, left_out, listed, require_all, visible
from benchmark.profiles import NONE
from benchmark.provisioned import ENGINES
from benchmark.records import Environment, Gpu, GpuProcess, Telemetry
from benchmark.records.environment import PACKAGES
from benchmark.settings import Settings

CPUS = Path("/sys/devices/system/cpu")
SERVED = "endpoint"


def validate_environment(settings: Settings, engine: str) -> Environment:
    """Return everything about the node that can affect the figures; `engine`: the profile's.

    Raises SetupError, one sentence per line, if `benchmark_device` is "cuda" and torch sees no GPU: a run never falls
    back to the CPU by itself.
    """
    seen = _gpus() if settings.benchmark_device == "cuda" else _Gpus()
    # Only a server knows what it has loaded.
    weights, tokenizer = ("", "") if engine in (SERVED, NONE) else _hashes(settings)
    return Environment(
        hostname=socket.gethostname(),
        platform=platform.platform(),
        cpu=_cpu_model(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        python=platform.python_version(),
        gpus=seen.gpus,
        driver=seen.driver,
        cuda=seen.cuda,
        cuda_driver=seen.cuda_driver,
        kernel=platform.release(),
        cpu_governor=_governor(),
        compiler=_compiler(),
        nvml=seen.unreported,
        model_sha256=weights,
        tokenizer_sha256=tokenizer,
        packages=installed.versions(PACKAGES),
        server_packages=packages(ENGINES[engine], settings) if engine in ENGINES else {},
    )


def require_idle(settings: Settings, engine: str, seen: Environment) -> None:
    """Raise SetupError, with a sentence for each, if other processes compute on the GPUs of this run.

    Processes that only draw (an X server, a desktop) are recorded and tolerated. So is a server that is already
    running: it is what is measured.
    """
    others = [(gpu, one) for gpu in seen.gpus for one in gpu.processes if one.kind == "compute"]
    if not others or engine == SERVED or not settings.benchmark_require_idle_gpus:
        return
    reported = [f"GPU {gpu.index} ({gpu.known_as}) is used by {_process_words(one)}." for gpu, one in others]
    advice = (
        "Figures measured beside it would not be the GPU's alone: end it, use other GPUs (CUDA_VISIBLE_DEVICES in "
        "benchmark_environment), or set benchmark_require_idle_gpus: false."
    )
    raise SetupError("\n".join([*reported, advice]))


def foreign_processes(settings: Settings, engine: str, watched: Telemetry | None) -> tuple[str, ...]:
    """Return a sentence for each process that appeared on a GPU during the measurement; none if GPUs may be shared."""
    if watched is None or engine == SERVED or not settings.benchmark_require_idle_gpus:
        return ()
    return tuple(
        f"GPU {gpu.index} was used by {_process_words(one)}, which started while the node measured: the figures are "
        "not the GPU's alone."
        for gpu in watched.gpus
        for one in gpu.foreign_processes
    )


def _process_words(process: GpuProcess) -> str:
    name = process.name or "a program that this user may not see"
    user = f" of {process.user}" if process.user else ""
    memory = "" if process.memory_mib is None else f", {process.memory_mib} MiB"
    return f"another process: {name}{user}, pid {process.pid}{memory}"


@dataclass(frozen=True)
class _Gpus:
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    cuda_driver: str | None = None
    unreported: str | None = None
    """Why the driver could not be queried."""


def _gpus() -> _Gpus:
    try:
        with driver() as asked:
            # First, as from here on this process may be among them.
            others = processes(asked)
            boards, found = listed(asked), visible()
            gpus, cuda = visible_gpus(asked.version)
            require_all(boards, gpus, found)
            if found is not None and found.left_out:
                print(found.left_out, file=sys.stderr, flush=True)
            reported = tuple(_with_processes(describe(asked, gpu), others) for gpu in gpus)
            return _Gpus(reported, asked.version, cuda, asked.cuda)
    except NoDriver as reason:
        gpus, cuda = visible_gpus()
        require_all((), gpus, visible())
        return _Gpus(gpus, None, cuda, None, str(reason))


def _with_processes(gpu: Gpu, others: dict[str, tuple[GpuProcess, ...]]) -> Gpu:
    return gpu.model_copy(update={"processes": next((p for u, p in others.items() if u.endswith(gpu.uuid)), ())})


def visible_gpus(driver_version: str | None = None) -> tuple[tuple[Gpu, ...], str]:
    """Return the GPUs that torch may use, and the CUDA version of its build. Raises SetupError if there are none."""
    try:
        with importing():
            import torch
    except ImportError as error:
        raise SetupError(f"torch is not installed here ({error}): run playbooks/provision.yml.") from None
    if torch.version.cuda is None:
        raise SetupError(
            f"torch {torch.__version__} is a build without CUDA: set python_env_torch_index_url to an index of CUDA "
            "builds, or benchmark_device to cpu if that is what you want."
        )
    if not torch.cuda.is_available():
        value = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if value is None else f" {left_out() or f'CUDA_VISIBLE_DEVICES is {value!r}.'}"
        raise SetupError(
            f"No GPU is usable: the driver is {driver_version or 'not found'}, torch {torch.__version__} is built for "
            f"CUDA {torch.version.cuda}.{hidden} Try nvidia-smi; for an older driver set python_env_torch_index_url to "
            "an index of builds for its CUDA version."
        )
    gpus = []
    for index in range(torch.cuda.device_count()):
        try:
            properties = torch.cuda.get_device_properties(index)
        except (RuntimeError, AssertionError) as error:
            raise SetupError(f"GPU {index} of {torch.cuda.device_count()} does not answer: {error}. {REMEDY}") from None
        memory_mib = properties.total_memory >> 20
        uuid = str(getattr(properties, "uuid", ""))
        gpus.append(Gpu(index=index, name=properties.name, memory_mib=memory_mib, uuid=uuid))
    return tuple(gpus), str(torch.version.cuda)


def _hashes(settings: Settings) -> tuple[str, str]:
    """Return the hashes of weights and tokenizer; empty if there is no model: loading reports that better."""
    try:
        snapshot = find_snapshot(settings)
        return weights_sha256(snapshot), tokenizer_sha256(snapshot)
    except (SetupError, ImportError, OSError):
        return "", ""


def _compiler() -> str:
    """Return the compiler that serving engines find: "gcc", "gcc without Python's headers" or "none"."""
    name = next((name for name in (os.environ.get("CC"), "gcc", "clang") if name and shutil.which(name)), None)
    if name is None:
        return "none"
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return name if headers else f"{name} without Python's headers"


def _governor() -> str:
    """Return the CPUs' frequency governors, "performance" or "performance, powersave"; empty in most containers."""
    names = set()
    for cpu in os.sched_getaffinity(0):
        try:
            names.add((CPUS / f"cpu{cpu}/cpufreq/scaling_governor").read_text(encoding="utf-8").strip())
        except OSError:
            continue
    return ", ".join(sorted(names))


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
