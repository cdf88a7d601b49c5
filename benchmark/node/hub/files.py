"""Which files are fetched from a model's or a dataset's repository at the hub."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from benchmark.errors import SetupError

# What loading a model needs, as huggingface_hub patterns. Pickled weights (*.bin, *.pth) may run code and are never
# fetched.
ALLOW_PATTERNS = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja"]
IGNORE_PATTERNS = ["original/*", "consolidated*"]


@dataclass(frozen=True)
class Kind:
    """A kind of repository: which files are needed, and the settings that select it."""

    name: str
    """huggingface_hub's name for it (repo_type)."""
    allow: tuple[str, ...]
    ignore: tuple[str, ...]
    setting: str
    revision_setting: str

    def folder(self, repository: str) -> str:
        """Return the name of the repository's directory in a cache."""
        return f"{self.name}s--" + repository.replace("/", "--")

    def page(self, repository: str) -> str:
        """Return the path of the repository's page at the hub."""
        return repository if self.name == "model" else f"{self.name}s/{repository}"

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return the names of the needed files, sorted; a name that points outside the snapshot is refused."""
        chosen = [
            name
            for name in names
            if any(fnmatchcase(name, pattern) for pattern in self.allow)
            and not any(fnmatchcase(name, pattern) for pattern in self.ignore)
        ]
        for name in chosen:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise SetupError(
                    f"The repository has a file called {name!r}, which points outside the snapshot: refused."
                )
        return sorted(chosen)

    def require_usable(self, names: Iterable[str], source: str) -> None:
        """Raise SetupError, naming `source`, if these files are not sufficient."""
        held = set(names)
        if self.name == "dataset":
            if not held:
                raise SetupError(f"{source} holds no {self.allow[0]}: it is not the expected dataset ({self.setting}).")
            return
        if not any(name.endswith(".safetensors") for name in held):
            raise SetupError(
                f"{source} holds no *.safetensors file, and other formats are not loaded: choose a model or "
                f"revision that has them ({self.setting})."
            )
        if "config.json" not in held:
            raise SetupError(f"{source} holds no config.json: it is not a model that transformers can load.")


MODEL = Kind(
    name="model",
    allow=tuple(ALLOW_PATTERNS),
    ignore=tuple(IGNORE_PATTERNS),
    setting="benchmark_model",
    revision_setting="benchmark_model_revision",
)
# The configuration and the split of CNN/DailyMail that MLPerf's reference uses.
DATASET = Kind(
    name="dataset",
    allow=("3.0.0/validation-*.parquet",),
    ignore=(),
    setting="hf_cache_dataset",
    revision_setting="hf_cache_dataset_revision",
)
