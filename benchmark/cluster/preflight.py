"""Judge what roles/preflight/files/probe.sh reported of a node: a sentence with a remedy for every problem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmark.cluster.gpu_health import CHECKED, Judged, Wanted, answers, judge
from benchmark.cluster.gpu_listing import FIELDS, Listing
from benchmark.provisioned_engine import ProvisionedEngine
from benchmark.trace_columns import COLUMNS, lacking

MIN_PYTHON = (3, 10)


@dataclass(frozen=True)
class EngineNeeds:
    """What a provisioned engine requires of a node.

    `locked`: its version is the one that this checkout locks, so its requirements are known; `gpus`: for one copy.
    """

    engine: ProvisionedEngine
    python: str
    env_dir: str
    env_gb: float
    locked: bool
    gpus: int = 1
    existing: str = ""
    """The directory of an existing environment, which is only checked; empty: one is made."""


@dataclass(frozen=True)
class Needs:
    """What a run requires of a node. Sizes in GB (10^9 bytes); `weights_gb` 0: no weights need to be downloaded."""

    device: str
    python: str
    env_dir: str
    env_gb: float
    cache_dir: str
    weights_gb: float
    engine: EngineNeeds | None = None
    absent_model: str = ""
    """A hub's model that is not downloaded, so that it must exist; empty: none."""
    gpus: Wanted = field(default_factory=Wanted)
    existing: str = ""
    """The directory of an existing environment, which is only checked; empty: one is made."""
    trace: str = ""
    """The file that the dataset `trace` replays; empty: another dataset is used."""


@dataclass
class Probe:
    """The probe's lines by key. `many` holds the keys that may come more than once."""

    values: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Probe:
        """Read "key<TAB>value" lines; other lines (a login message) are skipped."""
        probe = cls()
        for line in text.splitlines():
            key, tab, value = line.partition("\t")
            if tab:
                probe.values[key] = value.strip()
                probe.many.setdefault(key, []).append(value.strip())
        return probe

    @property
    def hung(self) -> dict[str, str]:
        """The parts of the probe that did not end, and the command at which each was stuck."""
        return dict(line.partition(" ")[::2] for line in self.many.get("hung", []))

    @property
    def listing(self) -> Listing:
        """What nvidia-smi listed."""
        fields = self.values.get("gpu_fields", "")
        return Listing.parse(
            self.many.get("gpu", []), fields.split(",") if fields else FIELDS, self.many.get("gpu_rows", [])
        )


def gpus(probe: Probe) -> list[dict[str, str]]:
    """Return name, memory (MiB, or what nvidia-smi says in its place) and driver of every GPU that answers."""
    listed = filter(answers, probe.listing.gpus)
    return [{"name": g.name, "memory_mib": g.memory_mib, "driver": g.driver} for g in listed]


def unchecked(probe: Probe) -> tuple[str, ...]:
    """Return the fields that nvidia-smi there does not know: faults that they show were not checked."""
    if "gpu_fields" not in probe.values or not probe.listing.gpus:
        return ()
    asked = probe.values["gpu_fields"].split(",")
    apart = "remapped_rows" if "gpu_rows" in probe.values else None
    return tuple(name for name in CHECKED if name not in asked and name.partition(".")[0] != apart)


def warnings(probe: Probe, needs: Needs) -> list[str]:
    """Return warnings about a node that is fit, a sentence each."""
    if needs.device != "cuda":
        return []
    return [*_judged(probe, needs).warnings, *(_old_driver(probe, needs.engine) if needs.engine else [])]


def _judged(probe: Probe, needs: Needs) -> Judged:
    wanted = needs.gpus
    if wanted.visible is None:
        # The run inherits the environment of the node's login.
        wanted = replace(wanted, visible=probe.values.get("visible_devices"))
    return judge(probe.listing, probe.values.get("gpu_status", ""), probe.many.get("pci_gpu", []), wanted)


def problems(probe: Probe, needs: Needs) -> list[str]:
    """Return every problem that keeps the node from running."""
    hung = probe.hung
    existing = "python_env_dir" if needs.existing else ""
    found = [hung_words(command, existing) for command in dict.fromkeys(hung.values())]
    # The rest of a part that hung is unknown, and not reported as a further problem.
    found += [] if "env" in hung else _python(probe, needs)
    found += [] if "engine_env" in hung or needs.engine is None else _engine(probe, needs.engine)
    found += [] if "model" in hung else _model(probe, needs)
    found += probe.many.get("file_lacks", [])
    begins = probe.values.get("dataset_begins")
    if needs.trace and begins is not None and (columns := lacking(begins)):
        found.append(f"benchmark_dataset_path: {needs.trace} has no {' and no '.join(columns)}; a trace is {COLUMNS}.")
    found += _disk(probe, needs)
    judged = _judged(probe, needs) if needs.device == "cuda" and "gpu" not in hung else None
    if needs.engine and judged and 0 < judged.usable < needs.engine.gpus:
        found.append(
            f"{needs.engine.engine.title} needs {needs.engine.gpus} GPUs of this node "
            f"(tensor_parallel_size x pipeline_parallel_size), and it has {judged.usable}."
        )
    if missing := probe.many.get("missing_program"):
        found.append(f"Not installed: {', '.join(missing)} (coreutils, util-linux, tar and gzip have them).")
    return [*found, *(judged.problems if judged else ())]


def hung_words(command: str, existing: str = "") -> str:
    """Return a sentence for a command of the probe that did not end.

    `existing`: the setting that names an existing environment; empty: one is made.
    """
    remedy = (
        "a disk does not answer there (a network disk whose server is gone?): mount it again, or set another directory"
    )
    if command.startswith(("nvidia-smi", "a look at /sys/")):
        remedy = "the NVIDIA driver or a GPU hangs: look at dmesg for XID errors; usually only a restart helps"
    elif not command.startswith(("df ", "a look at ")):
        other = f"{existing} to another environment" if existing else "python_env_python to another interpreter"
        remedy = f"try it on the node, or set {other}"
    return f"The node answers, but {command} hangs there: {remedy}."


def _python(probe: Probe, needs: Needs) -> list[str]:
    version = probe.values.get("python", "")
    wanted = ".".join(map(str, MIN_PYTHON))
    if needs.existing:
        return _existing("python_env", needs.existing, needs.python, version)
    if not version:
        return [f"There is no Python: {needs.python} does not start. Install Python {wanted} or newer, or set "
                "python_env_python to an existing one."]  # fmt: skip
    if _numbers(version) < MIN_PYTHON:
        return [f"{needs.python} is Python {version}; {wanted} or newer is needed: set python_env_python to one."]
    if "venv" not in probe.values and "env_present" not in probe.values:
        return [f"{needs.python} cannot make virtual environments: install its venv package "
                "(Debian and Ubuntu: python3-venv)."]  # fmt: skip
    return []


def _existing(role: str, directory: str, python: str, version: str) -> list[str]:
    """Return why an environment that must exist has no usable Python; the role checks its packages."""
    named = f"{role}_manage is false, so {role}_dir must name an existing environment"
    if not version:
        return [f"{named}, and {directory} has no Python that starts ({python}): set {role}_dir to one."]
    if _numbers(version) < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        return [
            f"{named}, and {python} is Python {version}; {wanted} or newer is needed: set {role}_dir to another one."
        ]
    return []


def _engine(probe: Probe, needs: EngineNeeds) -> list[str]:
    name, title, lock = needs.engine.name, needs.engine.title, needs.engine.lock
    version, found = probe.values.get("engine_python", ""), []
    if needs.existing:
        return _existing(name, needs.existing, needs.python, version)
    if not version:
        found.append(
            f"There is no Python for {title}: {needs.python} does not start; set {name}_python to one that does."
        )
    elif needs.locked and not lock.oldest_python <= _numbers(version) < lock.below_python:
        found.append(
            f"{needs.python} is Python {version}, and {title} needs Python {lock.pythons[0]} to {lock.pythons[-1]}: "
            f"set {name}_python to one."
        )
    elif "engine_venv" not in probe.values and "engine_env_present" not in probe.values:
        found.append(f"{needs.python} cannot make virtual environments, which {title} needs: install its venv package.")
    machine, libc = probe.values.get("machine", ""), probe.values.get("libc", "")
    if needs.locked and (machine != lock.machine or not libc.startswith("glibc ") or _numbers(libc[6:]) < lock.glibc):
        found.append(
            f"This node is {machine} with {libc or 'another C library'}, and the locked {title} is for "
            f"{lock.machine} with glibc {'.'.join(map(str, lock.glibc))} or newer: set {name}_requirements to a file "
            f"that pins {title} and what it needs there."
        )
    return found


def _old_driver(probe: Probe, needs: EngineNeeds) -> list[str]:
    """Return a warning if the driver is too old for the build; NVIDIA's compatibility package may still help."""
    oldest, name = needs.engine.lock.oldest_driver, needs.engine.name
    old = {gpu["driver"] for gpu in gpus(probe) if (0,) < _numbers(gpu["driver"])[:1] < (oldest,)}
    if not needs.locked or not old:
        return []
    return [
        f"The NVIDIA driver is {', '.join(sorted(old))}, and the locked {needs.engine.title} is built for "
        f"{oldest} or newer. If it does not start: install a newer driver, or set {name}_requirements to a file "
        "that pins its build for an older CUDA."
    ]


def _model(probe: Probe, needs: Needs) -> list[str]:
    found = list(probe.many.get("model_lacks", []))
    if needs.absent_model and "model_present" not in probe.values:
        found.append(
            f"{needs.absent_model} is not in {needs.cache_dir} on the node, and hf_cache_source is none: set it to hub "
            "or controller, put the model there, or set benchmark_model to a directory that holds it."
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _disk(probe: Probe, needs: Needs) -> list[str]:
    found = []
    needed: dict[str, float] = {}
    free: dict[str, float] = {}
    places: dict[str, list[str]] = {}
    what = "the benchmark's own code" if needs.existing else "the environment"
    wanted = [("env", "env_present", needs.env_gb, f"{what} in {needs.env_dir}")]
    if (engine := needs.engine) and not engine.existing:
        place = f"{engine.engine.title} in {engine.env_dir}"
        wanted.append(("engine_env", "engine_env_present", engine.env_gb, place))
    if needs.weights_gb > 0:
        wanted.append(("cache", "model_present", needs.weights_gb, f"the weights in {needs.cache_dir}"))
    for key, present, gb, where in wanted:
        if key in probe.hung:
            continue
        # Existing files, also another user's, are only read; the role checks whether they are complete.
        if present in probe.values:
            continue
        if unwritable := probe.values.get(f"{key}_unwritable"):
            found.append(f"{unwritable} is not writable by this user, and {where} would go there.")
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
