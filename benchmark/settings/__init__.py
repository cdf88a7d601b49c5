"""The settings that a user edits, by their names in the inventory, one file per topic.

One definition serves the inventory (checked on the controller before any host is touched), the node and the
result files. The roles' defaults, specs and tables and docs/settings.md are made from it: `make generate`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from benchmark.canonical import canonical_sha256
from benchmark.errors import InputError
from benchmark.faults import sentence
from benchmark.profiles import Profile
from benchmark.provisioned import EngineSettings
from benchmark.settings.endpoint import EndpointSettings
from benchmark.settings.measurement import MeasurementSettings
from benchmark.settings.nodes import NodesSettings
from benchmark.settings.provisioning import ProvisioningSettings
from benchmark.settings.results import ResultsSettings
from benchmark.variables import SECRETS, VARIABLES

# Settings of the run, not of a node: all nodes must have the same values.
RUN_WIDE = (
    "benchmark_results_dir",
    "benchmark_prometheus_dir",
    "benchmark_fail_on_invalid",
    "benchmark_sync_start",
    "benchmark_sync_timeout_s",
    "benchmark_solo_first",
    "benchmark_repeats",
    "benchmark_min_nodes",
    "benchmark_drift",
    "benchmark_mlperf_round",
    "benchmark_audit",
    "benchmark_currency",
    "benchmark_system",
    "benchmark_driver",
)
# The same if all nodes are one system, which answers one schedule.
SYSTEM_WIDE = (
    "benchmark_profile",
    "benchmark_model",
    "benchmark_model_revision",
    "benchmark_dtype",
    "benchmark_target_qps",
    "benchmark_accuracy",
    "benchmark_timeout_s",
    "benchmark_endpoint_api",
    "benchmark_endpoint_model",
    "benchmark_endpoint_query_timeout_s",
)


class Settings(
    # From last to first: this is the order of pydantic's fields.
    ProvisioningSettings,
    ResultsSettings,
    NodesSettings,
    EndpointSettings,
    MeasurementSettings,
    EngineSettings,
):
    """Every setting of one node. Paths are the node's unless the description says otherwise.

    Settings of provisioned engines come from their declarations in `benchmark/provisioned/`.
    """


class ResolvedSettings(BaseModel):
    """A node's complete settings, with defaults filled in, and its whole profile, so that it needs no other file."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    settings: Settings
    profile: Profile

    @property
    def measurements(self) -> int:
        """The most measurements with the model loaded once: the repeats, or the steps of a sweep."""
        return len(self.profile.sweep.steps) if self.profile.sweep else self.settings.benchmark_repeats

    def sha256(self) -> str:
        """Return the hex SHA-256 of the canonical JSON form: equal settings, equal hash."""
        return canonical_sha256(self.model_dump(mode="json"))


def check_settings(variables: dict[str, Any]) -> Settings:
    """Fill in defaults and check types and ranges. Raises InputError with every problem, one sentence per line."""
    try:
        return Settings.model_validate(variables)
    except ValidationError as error:
        raise InputError("\n".join(map(_sentence, error.errors()))) from None


def _sentence(fault: ErrorDetails) -> str:
    name = str(next(iter(fault["loc"]), ""))
    if name in SECRETS:  # do not repeat its value
        return f"{name} may be secret and is not a setting: it would show in the process list."
    names = [variable.name for variable in VARIABLES]
    return sentence(fault, Settings, noun="a setting", listed=False, more=names)
