"""What an engine is that the project installs: a server with an environment of its own, which the run starts and ends.

An engine is declared in one file of `benchmark/provisioned/`; settings, preflight, provisioning, the start of the
server, results and drift read it there.
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
    # Who looks at it, and who runs in it, are started in different places.
    if not directory.startswith(("/", "~/")):
        raise ValueError("it must begin with / or ~/, since it is a directory on the node")
    if not directory.strip("/"):
        raise ValueError("it must not be the root (the system's own Python is in /usr)")
    if ":" in directory:
        raise ValueError("it must hold no colon, since it is to be found by PATH and PYTHONPATH")
    return directory


EnvironmentDirectory = Annotated[NonEmpty, AfterValidator(_of_an_environment)]
"""Where an environment is on the node."""


@dataclass(frozen=True)
class Lock:
    """The file that pins the engine and everything it needs, and which nodes the pinned wheels are for."""

    file: str
    """In the checkout."""
    oldest_python: tuple[int, int]
    below_python: tuple[int, int]
    machine: str
    glibc: tuple[int, int]
    """The oldest."""
    oldest_driver: int
    """The first number of the oldest NVIDIA driver that serves the CUDA of the build; 0: it is one for the CPU."""
    package: str = ""
    """What is locked, where that is a build for other hardware with a name of its own; empty: the engine's package."""
    torch: str = ""
    """The torch that it needs, where that is not locked but comes from an index of builds."""
    without: tuple[str, ...] = ()
    """What it asks for and works better without: built for another torch than that one."""

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Pythons that the wheels are for, the oldest first."""
        major, minor = self.oldest_python
        return tuple(f"{major}.{number}" for number in range(minor, self.below_python[1]))


class ServerOptions(BaseModel):
    """`benchmark_engine_options` that all such engines have; each adds its own. Absent: the server decides."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    reserved: ClassVar[tuple[str, ...]] = ()
    """Words of the command line that the run decides: where the server is and what it is called."""

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
                raise ValueError(f"{name} is what the run decides")
        return words


@dataclass(frozen=True)
class Part:
    """A node's part in a copy that is spread over several: the first (rank 0) answers, the others compute for it."""

    nodes: int
    rank: int
    host: str
    """An address of the first, at which they meet."""
    port: int


@dataclass(frozen=True)
class Start:
    """One start of the server on a node."""

    snapshot: Path
    """The directory of the model."""
    model: str
    """What the model is called in requests."""
    host: str
    port: int
    dtype: str
    device: str
    """cuda or cpu."""
    copies: int
    """Of the model, each over `gpus_of_a_copy` GPUs."""
    max_model_len: int
    """Tokens of prompt and answer."""
    part: Part | None = None
    """Which part of one copy over several nodes; None: the node has one or more copies to itself."""


@dataclass(frozen=True)
class ProvisionedEngine:
    """The declaration of an engine. Its name is also that of its role, and begins the names of its settings."""

    name: str
    title: str
    """As people write it."""
    package: str
    """The Python package, and the module in it, that the server is."""
    lock: Lock
    options: type[ServerOptions]
    program: str
    """In `bin` of the environment."""
    words: Callable[[Start, Any], list[str]]
    """What follows the program: everything that decides a number is said, also where it is the server's default."""
    variables: Mapping[str, str]
    """Environment variables of the server, such as those that keep it from reporting its use to its makers."""
    packages: tuple[str, ...]
    """Packages of its environment whose version can change a number: recorded in the result, compared for drift."""
    min_free_gb: float
    disk: str
    """What the environment takes of the disk, in words."""
    cpu_lock: Lock | None = None
    """The same for nodes without a GPU, where there is such a build."""
    works: str = ""
    """The versions that take our command line, such as >=0.23: what an environment that exists must have."""
    spreads: bool = False
    """Whether several nodes can serve one copy of a model together (`Start.part`)."""
    address_variable: str = ""
    """The environment variable that says at which address the others of such a copy reach the node."""
    key_variable: str = ""
    """The environment variable that holds the key which the server asks its clients for; empty: it asks for none."""
    max_model_len: int = 8192
    """Tokens of prompt and answer where nobody asks for another number: enough for every profile's prompts."""
    timeout_s: int = 3600
    caching_word: tuple[str, str] | None = None
    """The word that has repeated prompts answered without computing them, as short as it is understood and whole."""
    quantization_words: tuple[str, ...] = ()
    """Words of the command line after which it is said how the weights are quantized."""
    caches: tuple[str, ...] = ()
    """Directories under the home where it keeps what it compiled; they may be another user's of it, so they stay."""

    def setting(self, settings: BaseModel, name: str) -> Any:
        """Return one of its settings, by what follows its name: `dir`, `manage`, ... (see `settings_fields`)."""
        return getattr(settings, f"{self.name}_{name}")

    def lock_of(self, requirements: str) -> Lock | None:
        """Return the lock that a node's requirements are; None: they are a file of the user's own."""
        return next((lock for lock in self.locks if lock.file == requirements), None)

    @property
    def locks(self) -> tuple[Lock, ...]:
        """Its locks, that for GPUs first."""
        return (self.lock, *([self.cpu_lock] if self.cpu_lock else []))

    def check_options(self, given: Mapping[str, Any]) -> ServerOptions:
        """Return `given` as options. Raises InputError, a sentence for each fault."""
        try:
            return self.options.model_validate(dict(given))
        except ValidationError as error:
            before = f"The engine {self.name}: "
            raise InputError("\n".join(sentences(error, self.options, before=before, noun="an option"))) from None

    def switches_caching_on(self, word: str) -> bool:
        """Return whether a word of the command line is `caching_word`, in any length that may be understood."""
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
