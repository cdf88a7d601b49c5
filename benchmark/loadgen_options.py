"""What a profile may say of LoadGen's scenarios. Both halves read it: the controller refuses what cannot be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["performance", "accuracy", "probe", "burst"]


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
