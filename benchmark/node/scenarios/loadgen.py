"""MLPerf's scenarios, driven by MLCommons LoadGen: its schedule, its seeds, its clock and its verdict.

LoadGen takes limits, seeds and counts from its built-in configuration for the model; a profile's overrides are written
to user.conf, the file for that. Its output is recorded in the result unchanged.
"""

from __future__ import annotations

from typing import Any

from benchmark.audit import AUDIT_CONFIG, AUDIT_QUERIES, audit_config
from benchmark.errors import InputError, RunError, SetupError
from benchmark.loadgen_log import LOG_PREFIX, read_result
from benchmark.loadgen_options import SEEDS, Options
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload
from benchmark.node.loadgen_run import LoadGenRun
from benchmark.node.options import check

USER_CONF = "user.conf"
# LoadGen's modes of reading a configuration. Its "user" mode (1) does both in turn, but only once per process: the
# second time it omits its own limits. A process of ours has several runs: the peak search, measuring, accuracy.
OWN_CONFIGURATION, MORE_CONFIGURATION = 0, 2


class Scenario(interfaces.Scenario):
    """One of MLPerf's scenarios."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for unknown options."""
        self.options = check(Options, options, "scenario_options of the loadgen scenario")

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Let LoadGen issue queries until it has enough; return its verdict and its schedule.

        Raises SetupError if LoadGen is not installed, RunError if the engine broke or LoadGen left no result.
        """
        options = self.options.of(conditions.purpose).expecting(conditions.expected_ms)
        settings = self._settings(options, conditions, len(workload.prompts))
        conditions.begins(_least_s(settings, options, conditions, len(workload.prompts)))
        prefix = f"{conditions.prefix}{LOG_PREFIX}"
        audit = ""
        if conditions.purpose == "audit":
            path = conditions.directory / f"{conditions.prefix}{AUDIT_CONFIG}"
            path.write_text(audit_config(), encoding="utf-8")
            audit = str(path)
        run = LoadGenRun(workload, issuer, settings, conditions.directory, prefix, audit)
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
        least_s = settings.min_duration_ms / 1000
        text = options.user_conf(conditions.target_qps, prompts, settings.performance_sample_count_override, least_s)
        path.write_text(text, encoding="utf-8")
        if read != 0 or settings.FromConfig(str(path), options.model, options.scenario, MORE_CONFIGURATION) != 0:
            raise InputError(f"LoadGen does not accept {path}.")
        modes = mlperf_loadgen.TestMode
        settings.scenario = getattr(mlperf_loadgen.TestScenario, options.scenario)
        for name, seed in SEEDS[conditions.mlperf_round].items():
            setattr(settings, name, seed)
        settings.mode = modes.AccuracyOnly if conditions.purpose == "accuracy" else modes.PerformanceOnly
        return settings


def _least_s(settings: Any, options: Options, conditions: Conditions, prompts: int) -> float:
    """Return the minimum time for which LoadGen issues queries, in seconds, as far as it is known in advance.

    This follows from its minimum duration and its minimum number of queries: at the rate in Server, one after the other
    in SingleStream. An accuracy run has no minimum duration and issues every prompt once.
    """
    duration_s, equally = settings.min_duration_ms / 1000, bool(settings.sample_concatenate_permutation)
    queries, each_s = 0, 0.0
    if options.scenario == "Server" and conditions.target_qps > 0:
        each_s = 1 / conditions.target_qps
        queries = options.issued(duration_s * conditions.target_qps, prompts, equally)
    elif options.scenario == "SingleStream":
        each_s = (conditions.expected_ms or 0) / 1000
        planned = 2 * duration_s * 1e9 / settings.single_stream_expected_latency_ns
        queries = options.issued(planned, prompts, equally)
    if conditions.purpose in ("accuracy", "audit"):
        duration_s, queries = 0.0, prompts if conditions.purpose == "accuracy" else AUDIT_QUERIES
    return float(max(duration_s, queries * each_s))
