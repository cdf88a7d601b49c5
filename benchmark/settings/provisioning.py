"""Whether a node is fit, and what is provided on it: the roles preflight, python_env and hf_cache.

The engines' environments are described in `benchmark/provisioned/`.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from benchmark.provisioned_engine import EnvironmentDirectory, NonEmpty
from benchmark.settings.base import SettingsPart

DEFAULT_DATASET = "abisee/cnn_dailymail"
# The last commit of the dataset's repository: its files have been Parquet, without a loading script, since then.
DEFAULT_DATASET_REVISION = "96df5e686bee6baa90b8bee7c28b81fa3fa6223d"


class ProvisioningSettings(SettingsPart):
    """Whether a node is fit, its Python environment, and model and dataset."""

    preflight_gpus: int = Field(
        0,
        ge=0,
        description=(
            "number of GPUs that the node has to have, whether the run uses them or not: with fewer or more the node "
            "fails; 0: any number"
        ),
    )
    preflight_sick_gpus: Literal["fail", "warn"] = Field(
        "fail",
        description=(
            "what to do if a GPU answers, but is known to be broken or to need a reset (memory errors, a recovery "
            "action): fail keeps its node from measuring"
        ),
    )

    python_env_manage: bool = Field(
        True,
        description=(
            "whether the role makes the environment; false: python_env_dir is an existing one (of conda, an "
            "environment module or a container), which is checked and never changed"
        ),
    )
    python_env_dir: EnvironmentDirectory = Field(
        "~/.local/share/llm-benchmark/venv",
        description=(
            "the virtual environment on the node; environments with other packages are made beside it (venv-<hash>). "
            "With python_env_manage false: the existing one, with bin/python3 in it"
        ),
    )
    python_env_code_dir: EnvironmentDirectory = Field(
        "~/.local/share/llm-benchmark/code",
        description="on the node: where the benchmark's own code goes if python_env_manage is false",
    )
    python_env_python: NonEmpty = Field(
        "python3", description="the interpreter for that environment, 3.10 or newer, with its venv module"
    )
    python_env_requirements: NonEmpty = Field(
        "requirements-node.txt", description="on the controller, relative to the checkout: the pinned packages"
    )
    python_env_torch_index_url: str = Field(
        "",
        description=("package index of torch builds for an older driver or for the CPU; empty: the node's usual index"),
    )
    python_env_wheelhouse: str = Field(
        "",
        description=(
            "on the controller, relative to the checkout: a directory of wheels (make wheelhouse), the only source "
            "of packages then, for nodes without internet; empty: none"
        ),
    )
    python_env_min_free_gb: float = Field(
        10,
        ge=0,
        description=(
            "free disk in GB that a new environment needs (torch with CUDA is most of it); preflight checks it"
        ),
    )
    python_env_timeout_s: int = Field(1800, ge=1, description="seconds until one installation counts as hung")

    hf_cache_dir: NonEmpty = Field("~/.cache/huggingface", description="the Hugging Face cache (HF_HOME) on the node")
    hf_cache_source: Literal["hub", "controller", "none"] = Field(
        "hub",
        description=(
            "hub: each node downloads; controller: it downloads once and pushes, so that nodes need no internet; "
            "none: nothing is downloaded, and the files on the node are verified"
        ),
    )
    hf_cache_controller_dir: str = Field(
        "",
        description=(
            "the cache on the controller for hf_cache_source controller; empty: its HF_HOME or ~/.cache/huggingface"
        ),
    )
    hf_cache_dataset: NonEmpty = Field(
        DEFAULT_DATASET,
        description=(
            "hub id of CNN/DailyMail, prepared where the profile asks for it and benchmark_dataset_path is empty"
        ),
    )
    hf_cache_dataset_revision: NonEmpty = Field(
        DEFAULT_DATASET_REVISION, description="commit, tag or branch of the dataset; only a commit is fixed"
    )
    hf_cache_min_free_gb: float = Field(
        20, ge=0, description="disk space in GB that the weights need at least; files that are there already count"
    )
    hf_cache_timeout_s: int = Field(
        7200, ge=1, description="seconds until a download counts as hung: two hours are enough for 16 GB at 20 Mbit/s"
    )

    @property
    def code_dir(self) -> str:
        """Where the benchmark's own code lies on the node: what `find_environment` is asked for."""
        return self.python_env_dir if self.python_env_manage else self.python_env_code_dir

    @field_validator("python_env_torch_index_url")
    @classmethod
    def _index(cls, url: str) -> str:
        # Kept in every result, and a word of pip's command line on the node.
        if urlsplit(url).password is not None:
            raise ValueError("a password in a URL would be kept and shown: pip takes it from ~/.netrc on the node")
        return url
