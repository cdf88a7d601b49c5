"""MLPerf's scenarios, driven by MLCommons LoadGen: its schedule, its seeds, its clock and its verdict.

LoadGen takes limits, seeds and counts from the configuration that it carries for the model; what a profile overrides
is written to user.conf, its own file for that. All that it says goes into the result as it says it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.errors import InputError, RunError, SetupError
from benchmark.loadgen_log import LOG_PREFIX, read_result
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Purpose, Workload
from benchmark.node.loadgen_run import LoadGenRun
from benchmark.node.options import check

USER_CONF = "user.conf"
# LoadGen's ways to read a configuration. Its "user" way (1) does these two after one another, once in a process: at the
# second time it leaves its own limits out. A process of ours has several runs: the peak search, measuring, accuracy.
OWN_CONFIGURATION, MORE_CONFIGURATION = 0, 2


class Options(BaseModel):
    """The profile's `scenario_options`. What is None is LoadGen's own; what is given stands in user.conf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scenario: Literal["Server", "Offline", "SingleStream"]
    model: str = Field("llama3_1-8b", pattern=r"^[\w.-]+$", description="whose limits in LoadGen's configuration")
    min_duration_ms: int | None = Field(None, ge=0)
    max_duration_ms: int | None = Field(None, ge=0)
    min_query_count: int | None = Field(None, ge=1)
    max_query_count: int | None = Field(None, ge=1)
    ttft_latency_ms: int | None = Field(None, ge=1, description="Server: P99 limit of the time to the first token")
    tpot_latency_ms: int | None = Field(None, ge=1, description="Server: P99 limit of the time per output token")
    target_latency_ms: float | None = Field(None, gt=0, description="SingleStream: expected, for queries to generate")
    probe_duration_ms: int = Field(60_000, ge=1, description="of one probe of the peak search, at least")
    probe_query_count: int = Field(64, ge=1, description="of one probe, at least")
    burst_query_count: int = Field(256, ge=1, description="issued at once to learn where the search begins")

    def of(self, purpose: Purpose) -> Options:
        """Return the options of a run for that purpose."""
        changes: dict[str, Any] = {}
        if purpose == "probe":
            changes = {"min_duration_ms": self.probe_duration_ms, "min_query_count": self.probe_query_count}
        elif purpose == "burst":
            count = self.burst_query_count
            changes = {"scenario": "Offline", "min_duration_ms": 0, "min_query_count": count, "max_query_count": count}
        elif purpose == "accuracy":
            # Answers do not depend on when they were asked for: at a Server's rate it would take hours for nothing.
            changes = {"scenario": "Offline"}
        return self.model_copy(update=changes)

    def user_conf(self, target_qps: float, prompts: int, performance_prompts: int) -> str:
        """Return user.conf: `target_qps` in queries per second, `prompts` in the dataset."""
        given: dict[str, Any] = {
            "min_duration": self.min_duration_ms,
            "max_duration": self.max_duration_ms,
            "min_query_count": self.min_query_count,
            "max_query_count": self.max_query_count,
            "ttft_latency": self.ttft_latency_ms,
            "tpot_latency": self.tpot_latency_ms,
            "target_latency": self.target_latency_ms if self.scenario == "SingleStream" else None,
            "target_qps": target_qps if self.scenario != "SingleStream" else None,
            # LoadGen believes its configuration even where the dataset is smaller.
            "performance_sample_count_override": prompts if prompts != performance_prompts else None,
        }
        lines = [f"{self.model}.{self.scenario}.{key} = {v}" for key, v in given.items() if v is not None]
        return "\n".join(["# What differs from LoadGen's own configuration for the model.", *lines, ""])


class Scenario(interfaces.Scenario):
    """One of MLPerf's scenarios."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for options that the scenario does not have."""
        self.options = check(Options, options, "scenario_options of the loadgen scenario")

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Let LoadGen issue queries until it has enough; return its verdict and when it had scheduled them.

        Raises SetupError where LoadGen is not installed, RunError where the engine broke or LoadGen left no result.
        """
        options = self.options.of(conditions.purpose)
        settings = self._settings(options, conditions, len(workload.prompts))
        conditions.begins(_least_s(settings, options, conditions.target_qps))
        prefix = f"{conditions.prefix}{LOG_PREFIX}"
        run = LoadGenRun(workload, issuer, settings, conditions.directory, prefix)
        run.run()
        try:
            result = read_result(conditions.directory, conditions.prefix)
        except InputError as error:
            raise RunError(str(error)) from None
        return Outcome(loadgen=result, scheduled_ns=run.scheduled_ns())

    def _settings(self, options: Options, conditions: Conditions, prompts: int) -> Any:
        try:
            import mlperf_loadgen
        except ImportError as error:
            raise SetupError(
                f"LoadGen is not installed ({error}): run playbooks/provision.yml. There are wheels for x86-64 and "
                "CPython 3.10 to 3.13; elsewhere pip needs a C++ compiler."
            ) from None
        settings = mlperf_loadgen.TestSettings()
        path = conditions.directory / f"{conditions.prefix}{USER_CONF}"
        read = settings.FromConfig("", options.model, options.scenario, OWN_CONFIGURATION)
        text = options.user_conf(conditions.target_qps, prompts, settings.performance_sample_count_override)
        path.write_text(text, encoding="utf-8")
        if read != 0 or settings.FromConfig(str(path), options.model, options.scenario, MORE_CONFIGURATION) != 0:
            raise InputError(f"LoadGen does not accept {path}.")
        modes = mlperf_loadgen.TestMode
        settings.scenario = getattr(mlperf_loadgen.TestScenario, options.scenario)
        settings.mode = modes.AccuracyOnly if conditions.purpose == "accuracy" else modes.PerformanceOnly
        return settings


def _least_s(settings: Any, options: Options, target_qps: float) -> float:
    """Return how long LoadGen issues at least: its least duration and, at a Server's rate, its least queries."""
    queries_s = settings.min_query_count / target_qps if options.scenario == "Server" and target_qps > 0 else 0.0
    return float(max(settings.min_duration_ms / 1000, queries_s))
