"""What a run leaves, and where: on the controller and on a node."""

from __future__ import annotations

from pydantic import Field

from benchmark.provisioned_engine import NonEmpty
from benchmark.settings.base import SettingsPart


class ResultsSettings(SettingsPart):
    """The run and its files."""

    benchmark_fail_on_invalid: bool = Field(True, description="whether an invalid verdict fails the playbook")
    benchmark_results_dir: NonEmpty = Field(
        "results", description="on the controller, relative to the checkout: where runs are kept"
    )
    benchmark_prometheus_dir: str = Field(
        "",
        description=(
            "on the controller, relative to the checkout: the directory of the node exporter's textfile "
            "collector, into which llm_benchmark.prom is written after every run; empty: none"
        ),
    )
    benchmark_work_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/runs",
        description=(
            "on the node: where a run's files are until they are fetched; use a local disk if the home directory is "
            "shared"
        ),
    )
