"""Engines that the project installs: servers with their own environment, which the run starts and ends.

An engine is declared in one file of `benchmark/provisioned/`; settings, preflight, provisioning, the start of the
server, results and drift use that declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from benchmark.errors import InputError
from benchmark.faults import sentences

PLACE = "~/.local/share/llm-benchmark"
NonEmpty = Annotated[str, Field(min_length=1)]


def _of_an_environment(directory: str) -> str:
    # It is checked and used by processes with different working directories.
    if not directory.startswith(("/", "~/")):
        raise ValueError("it must begin with / or ~/, since it is a directory on the node")
    if not directory.strip("/"):
        raise ValueError("it must not be the root (the system's own Python is in /usr)")
    if ":" in directory:
        raise ValueError("it must not contain a colon, since it is put into PATH and PYTHONPATH")
    return directory


EnvironmentDirectory = Annotated[NonEmpty, AfterValidator(_of_an_environment)]
"""Where an environment is on the node."""


@dataclass(frozen=True)
class Lock:
    """The file that pins the engine and all its dependencies, and the kinds of nodes that the pinned wheels fit."""

    file: str
    """Path of the file in the checkout."""
    oldest_python: tuple[int, int]
    below_python: tuple[int, int]
    machine: str
    glibc: tuple[int, int]
    """The oldest."""
    oldest_driver: int
    """Major version of the oldest NVIDIA driver that supports the build's CUDA; 0: a build for the CPU."""
    package: str = ""
    """The locked package, if it is a build for other hardware with its own name; empty: the engine's package."""
    torch: str = ""
    """The torch that it needs, if that is not locked but comes from an index of builds."""
    without: tuple[str, ...] = ()
    """Dependencies that it works better without: they are built for another torch."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Python versions that the wheels are for, oldest first."""
        major, minor = self.oldest_python
        return tuple(f"{major}.{number}" for number in range(minor, self.below_python[1]))


class ServerOptions(BaseModel):
    """`benchmark_engine_options` that all such engines have; each adds its own. Absent: the server's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    reserved: ClassVar[tuple[str, ...]] = ()
    """Command-line options that the run sets: the server's address and its model name."""

    max_model_len: int | None = Field(
        None, ge=1, description="most tokens of prompt and answer; absent: 8192, or the model's maximum if that is less"
    )
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that each layer of the model is spread over")
    pipeline_parallel_size: int = Field(
        1, ge=1, description="pipeline stages: groups of the model's layers, each on GPUs of its own"
    )
    arguments: list[str] = Field([], description="further command line arguments, such as --kv-cache-dtype=fp8")

    @property
    def gpus_of_a_copy(self) -> int:
        """GPUs that one copy of the model is spread over."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @field_validator("arguments")
    @classmethod
    def _not_reserved(cls, words: list[str]) -> list[str]:
        for word in words:
            if (name := word.partition("=")[0].replace("_", "-")) in cls.reserved:
                raise ValueError(f"{name} is set by the run")
        return words


@dataclass(frozen=True)
class Part:
    """A node's part in a copy on several nodes: the first (rank 0) answers, the others compute for it."""

    nodes: int
    rank: int
    host: str
    """An address of the first node, at which they connect."""
    port: int


@dataclass(frozen=True)
class Start:
    """One start of the server on a node."""

    snapshot: Path
    """The directory of the model."""
    model: str
    """The model's name in requests."""
    host: str
    port: int
    dtype: str
    device: str
    """cuda or cpu."""
    copies: int
    """Copies of the model, each on `gpus_of_a_copy` GPUs."""
    max_model_len: int
    """Tokens of prompt and answer."""
    part: Part | None = None
    """The node's part of a copy on several nodes; None: the node has one or more copies of its own."""


@dataclass(frozen=True)
class ProvisionedEngine:
    """The declaration of an engine. Its name is also that of its role, and the prefix of its settings."""

    name: str
    title: str
    """The name as people write it."""
    package: str
    """The server's Python package and module."""
    lock: Lock
    options: type[ServerOptions]
    program: str
    """The program's name in the environment's `bin`."""
    words: Callable[[Start, Any], list[str]]
    """The program's arguments: everything that affects a number is explicit, even if it is the server's default."""
    variables: Mapping[str, str]
    """Environment variables of the server, such as those that keep it from reporting its use to its makers."""
    packages: tuple[str, ...]
    """Packages of its environment whose version can change a number: recorded in the result, compared for drift."""
    min_free_gb: float
    disk: str
    """The environment's disk space, in words."""
    cpu_lock: Lock | None = None
    """The lock for nodes without a GPU, if there is such a build."""
    works: str = ""
    """The versions that accept our command line, such as >=0.23, required in an existing environment."""
    spreads: bool = False
    """Whether several nodes can serve one copy of a model together (`Start.part`)."""
    address_variable: str = ""
    """The environment variable with the address at which the other nodes of such a copy reach the node."""
    key_variable: str = ""
    """The environment variable with the API key that the server requires; empty: it requires none."""
    max_model_len: int = 8192
    """Default tokens of prompt and answer: enough for every profile's prompts."""
    timeout_s: int = 3600
    caching_word: tuple[str, str] | None = None
    """The option that enables the prefix cache: its shortest accepted form and its full form."""
    quantization_words: tuple[str, ...] = ()
    """Command-line options that set the quantization of the weights."""
    caches: tuple[str, ...] = ()
    """Directories under the home with its compiled code; other programs may use them, so they are not removed."""

    def setting(self, settings: BaseModel, name: str) -> Any:
        """Return one of its settings by the suffix of its name: `dir`, `manage`, ... (see `settings_fields`)."""
        return getattr(settings, f"{self.name}_{name}")

    def lock_of(self, requirements: str) -> Lock | None:
        """Return the lock of a node's requirements; None: they are a user's own file."""
        return next((lock for lock in self.locks if lock.file == requirements), None)

    @property
    def locks(self) -> tuple[Lock, ...]:
        """Its locks, the one for GPUs first."""
        return (self.lock, *([self.cpu_lock] if self.cpu_lock else []))

    def check_options(self, given: Mapping[str, Any]) -> ServerOptions:
        """Return `given` as options. Raises InputError, a sentence for each fault."""
        try:
            return self.options.model_validate(dict(given))
        except ValidationError as error:
            before = f"The engine {self.name}: "
            raise InputError("\n".join(sentences(error, self.options, before=before, noun="an option"))) from None

    def switches_caching_on(self, word: str) -> bool:
        """Return whether a command-line argument is `caching_word`, in any accepted abbreviation."""
        shortest, whole = self.caching_word or ("", "")
        name = word.partition("=")[0].replace("_", "-")
        return bool(shortest) and name.startswith(shortest) and whole.startswith(name)

    def settings_fields(self) -> dict[str, Any]:
        """Return the fields of its settings: name -> type and description with a default."""
        pythons = self.lock.pythons
        fields: dict[str, Any] = {
            "manage": (
                bool,
                Field(
                    True,
                    description=(
                        f"whether the role installs {self.title}; false: {self.name}_dir is an existing environment "
                        "that has it, which is checked and never changed"
                    ),
                ),
            ),
            "dir": (
                EnvironmentDirectory,
                Field(
                    f"{PLACE}/{self.name}",
                    description=(
                        f"{self.title}'s own virtual environment on the node: it pins its own torch. With "
                        f"{self.name}_manage false: the directory of the existing environment, with bin/python3 and "
                        f"bin/{self.program} in it"
                    ),
                ),
            ),
            "python": (
                str,
                Field(
                    "",
                    description=(
                        f"the interpreter for that environment, {pythons[0]} to {pythons[-1]} for the version that is "
                        "locked; empty: python_env_python"
                    ),
                ),
            ),
            "requirements": (
                NonEmpty,
                Field(
                    self.lock.file,
                    description=(
                        f"on the controller, relative to the checkout: {self.title} and all its dependencies, locked "
                        "by version and checksum"
                    ),
                ),
            ),
            "wheelhouse": (
                str,
                Field(
                    "",
                    description=(
                        "on the controller, relative to the checkout: a directory of wheels (make wheelhouse "
                        f"REQUIREMENTS={self.lock.file}), the only source of {self.title} then; empty: none"
                    ),
                ),
            ),
            "min_free_gb": (
                float,
                Field(
                    self.min_free_gb,
                    ge=0,
                    description=(
                        f"free disk in GB that a new environment of it needs ({self.disk}); preflight checks it"
                    ),
                ),
            ),
            "timeout_s": (
                int,
                Field(self.timeout_s, ge=1, description="seconds until one installation of it counts as hung"),
            ),
        }
        return {f"{self.name}_{name}": field for name, field in fields.items()}
