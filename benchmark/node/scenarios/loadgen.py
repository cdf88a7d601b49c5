"""MLPerf's scenarios, driven by MLCommons LoadGen: its schedule, its seeds, its clock and its verdict.

LoadGen takes limits, seeds and counts from the configuration that it carries for the model; what a profile overrides
is written to user.conf, its own file for that. All that it says goes into the result as it says it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.audit import AUDIT_CONFIG, audit_config
from benchmark.errors import InputError, RunError, SetupError
from benchmark.loadgen_log import LOG_PREFIX, read_result
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Purpose, Workload
from benchmark.node.loadgen_run import LoadGenRun
from benchmark.node.options import check

USER_CONF = "user.conf"
# Of each round of MLPerf Inference: for the choice of samples, for their order, and for a Server's arrivals.
SEEDS = {
    "5.1": (1780908523862526354, 14771362308971278857, 18209322760996052031),
    "6.0": (2465351861681999779, 14276810075590677512, 3936089224930324775),
    "6.1": (2085463073848966840, 2747215439041700203, 16159082839903944936),
}
# What LoadGen asks for where a configuration does not say more.
LEAST_QUERIES = 100
# LoadGen plans twice the SingleStream queries that its least duration takes at the expected latency, and then issues
# all. Of a latency that is set so much higher it plans a third more than are needed: queries differ, and a warm-up has
# few of them.
SINGLE_STREAM_ROOM = 1.5
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
        return self.model_copy(update=changes)

    def expecting(self, expected_ms: float | None) -> Options:
        """Return the options with the latency that SingleStream is planned by, where none is given."""
        if self.scenario != "SingleStream" or self.target_latency_ms is not None or not expected_ms:
            return self
        return self.model_copy(update={"target_latency_ms": round(expected_ms * SINGLE_STREAM_ROOM, 3)})

    def least_queries(self, target_qps: float, least_s: float) -> int | None:
        """Return the least number of queries to ask for; None: LoadGen's own.

        Of a Server it is what every submission asks for, where as many as the option says come in `least_s` anyway:
        arrivals are random, their number is almost never below its mean by more than five standard deviations.
        """
        wanted = self.min_query_count
        if wanted is None or self.scenario != "Server" or wanted <= LEAST_QUERIES:
            return wanted
        coming = target_qps * least_s
        return LEAST_QUERIES if coming - 5 * math.sqrt(coming) >= wanted else wanted

    def user_conf(self, target_qps: float, prompts: int, performance_prompts: int, least_s: float) -> str:
        """Return user.conf: `target_qps` in queries per second, `prompts` in the dataset.

        `least_s`: how long LoadGen measures at least, where the options do not say.
        """
        least_s = least_s if self.min_duration_ms is None else self.min_duration_ms / 1000
        given: dict[str, Any] = {
            "min_duration": self.min_duration_ms,
            "max_duration": self.max_duration_ms,
            "min_query_count": self.least_queries(target_qps, least_s),
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
        seeds = SEEDS[conditions.mlperf_round]
        settings.qsl_rng_seed, settings.sample_index_rng_seed, settings.schedule_rng_seed = seeds
        settings.mode = modes.AccuracyOnly if conditions.purpose == "accuracy" else modes.PerformanceOnly
        return settings


def _least_s(settings: Any, options: Options, conditions: Conditions, prompts: int) -> float:
    """Return how long LoadGen issues at least, in seconds, by what is known before it begins.

    That is its least duration, and the queries that it issues in any case: a Server's at their rate, SingleStream's one
    after the other. An accuracy run has no least duration and asks for every prompt once.
    """
    duration_s, queries = settings.min_duration_ms / 1000, settings.min_query_count
    if conditions.purpose == "accuracy":
        duration_s, queries = 0.0, prompts
    elif conditions.purpose == "audit":
        duration_s, queries = 0.0, LEAST_QUERIES
    elif options.scenario == "SingleStream":
        planned = max(queries, 2 * duration_s * 1e9 / settings.single_stream_expected_latency_ns)
        # Every prompt comes equally often.
        queries = math.ceil(planned / prompts) * prompts if settings.sample_concatenate_permutation else planned
    each_s = 0.0
    if options.scenario == "Server" and conditions.target_qps > 0:
        each_s = 1 / conditions.target_qps
    elif options.scenario == "SingleStream":
        each_s = (conditions.expected_ms or 0) / 1000
    return float(max(duration_s, queries * each_s))
