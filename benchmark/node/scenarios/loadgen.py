"""MLPerf's scenarios, driven by MLCommons LoadGen: its schedule, its seeds, its clock and its verdict.

LoadGen takes limits, seeds and counts from the configuration that it carries for the model; what a profile overrides
is written to user.conf, its own file for that. All that it says goes into the result as it says it.
"""

from __future__ import annotations

from typing import Any

from benchmark.errors import InputError, RunError, SetupError
from benchmark.loadgen_log import LOG_PREFIX, read_result
from benchmark.loadgen_options import Options
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload
from benchmark.node.loadgen_run import LoadGenRun
from benchmark.node.options import check

USER_CONF = "user.conf"
# LoadGen's ways to read a configuration. Its "user" way (1) does these two after one another, once in a process: at the
# second time it leaves its own limits out. A process of ours has several runs: the peak search, measuring, accuracy.
OWN_CONFIGURATION, MORE_CONFIGURATION = 0, 2


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
