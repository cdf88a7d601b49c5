"""Judge what roles/preflight/files/probe.sh told of a node: every problem, each a sentence with its remedy."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmark.vllm import BELOW_PYTHON, GLIBC, MACHINE, OLDEST_PYTHON

MIN_PYTHON = (3, 10)


@dataclass(frozen=True)
class VllmNeeds:
    """What vLLM asks of a node.

    `locked`: it is the version that this checkout locks, and what that takes is known; `gpus`: for one copy.
    """

    python: str
    env_dir: str
    env_gb: float
    locked: bool
    gpus: int = 1


@dataclass(frozen=True)
class Needs:
    """What a run asks of a node. Sizes in GB (10^9 bytes); `weights_gb` 0: no weights are to be brought there."""

    device: str
    python: str
    env_dir: str
    env_gb: float
    cache_dir: str
    weights_gb: float
    vllm: VllmNeeds | None = None


@dataclass
class Probe:
    """The probe's lines by key. `many` holds the keys that may come more than once."""

    values: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Probe:
        """Read "key<TAB>value" lines; other lines (a login message) are passed over."""
        probe = cls()
        for line in text.splitlines():
            key, tab, value = line.partition("\t")
            if tab:
                probe.values[key] = value.strip()
                probe.many.setdefault(key, []).append(value.strip())
        return probe


def gpus(probe: Probe) -> list[dict[str, str]]:
    """Return name, memory (MiB) and driver of every GPU that nvidia-smi listed."""
    if probe.values.get("gpu_status") != "0":
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in probe.many.get("gpu", [])]
    return [{"name": r[0], "memory_mib": r[1], "driver": r[2]} for r in rows if len(r) == 3]


def problems(probe: Probe, needs: Needs) -> list[str]:
    """Return everything that keeps the node from running, or nothing."""
    found = [*_python(probe, needs), *_vllm(probe, needs.vllm), *_disk(probe, needs)]
    if needs.vllm and needs.device == "cuda" and 0 < len(gpus(probe)) < needs.vllm.gpus:
        there = len(gpus(probe))
        found.append(
            f"vLLM is to spread over {needs.vllm.gpus} GPUs (tensor_parallel_size), and this node has {there}."
        )
    if missing := probe.many.get("missing_program"):
        found.append(f"Not installed: {', '.join(missing)} (coreutils, util-linux and tar have them).")
    if needs.device == "cuda" and not gpus(probe):
        said = " ".join(" ".join(probe.many.get("gpu", [])).split())[:200] or "it said nothing"
        found.append(
            f"No GPU is visible: nvidia-smi failed ({said}). Install or load the NVIDIA driver; to measure the CPU "
            "instead, set benchmark_device: cpu."
        )
    return found


def _python(probe: Probe, needs: Needs) -> list[str]:
    version = probe.values.get("python", "")
    wanted = ".".join(map(str, MIN_PYTHON))
    if not version:
        return [f"There is no Python: {needs.python} does not start. Install Python {wanted} or newer, or set "
                "python_env_python to one that is there."]  # fmt: skip
    if _numbers(version) < MIN_PYTHON:
        return [f"{needs.python} is Python {version}; {wanted} or newer is needed: set python_env_python to one."]
    if "venv" not in probe.values and "env_present" not in probe.values:
        return [f"{needs.python} cannot make virtual environments: install its venv package "
                "(Debian and Ubuntu: python3-venv)."]  # fmt: skip
    return []


def _vllm(probe: Probe, needs: VllmNeeds | None) -> list[str]:
    if needs is None:
        return []
    version, found = probe.values.get("vllm_python", ""), []
    first, last = (".".join(map(str, one)) for one in (OLDEST_PYTHON, (BELOW_PYTHON[0], BELOW_PYTHON[1] - 1)))
    if not version:
        found.append(f"There is no Python for vLLM: {needs.python} does not start; set vllm_python to one that does.")
    elif needs.locked and not OLDEST_PYTHON <= _numbers(version) < BELOW_PYTHON:
        found.append(
            f"{needs.python} is Python {version}, and vLLM takes Python {first} to {last}: set vllm_python to one."
        )
    elif "vllm_venv" not in probe.values and "vllm_env_present" not in probe.values:
        found.append(f"{needs.python} cannot make virtual environments, which vLLM needs: install its venv package.")
    machine, libc = probe.values.get("machine", ""), probe.values.get("libc", "")
    if needs.locked and (machine != MACHINE or not libc.startswith("glibc ") or _numbers(libc[6:]) < GLIBC):
        found.append(
            f"This node is {machine} with {libc or 'another C library'}, and the vLLM that is locked is for {MACHINE} "
            f"with glibc {'.'.join(map(str, GLIBC))} or newer: set vllm_requirements to a file that pins vLLM and what "
            "it needs there."
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _disk(probe: Probe, needs: Needs) -> list[str]:
    found = []
    needed: dict[str, float] = {}
    free: dict[str, float] = {}
    places: dict[str, list[str]] = {}
    wanted = [("env", "env_present", needs.env_gb, f"the environment in {needs.env_dir}")]
    if needs.vllm:
        wanted.append(("vllm_env", "vllm_env_present", needs.vllm.env_gb, f"vLLM in {needs.vllm.env_dir}"))
    if needs.weights_gb > 0:
        wanted.append(("cache", "model_present", needs.weights_gb, f"the weights in {needs.cache_dir}"))
    for key, present, gb, where in wanted:
        if unwritable := probe.values.get(f"{key}_unwritable"):
            found.append(f"{unwritable} is not writable for this user, and {where} would go there.")
        if present in probe.values:
            continue
        disk, _, kilobytes = probe.values.get(f"{key}_disk", "").rpartition(" ")
        if not kilobytes.isdigit():
            found.append(f"The free space for {where} is unknown: df failed there.")
            continue
        needed[disk] = needed.get(disk, 0) + gb
        free[disk] = int(kilobytes) * 1024 / 1e9
        places.setdefault(disk, []).append(where)
    for disk, gb in needed.items():
        if free[disk] < gb:
            found.append(
                f"{disk} has {free[disk]:.1f} GB free, {gb:.1f} GB are needed for {' and '.join(places[disk])}: "
                "make room, or set the directory to a larger disk."
            )
    return found
