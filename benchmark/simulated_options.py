"""Options of the simulated engine in a profile. The controller uses them too, to refuse invalid profiles."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """The profile's `engine_options`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    load_s: float = Field(0, ge=0, description="duration of loading in seconds")
    ttft_ms: float = Field(5, ge=0, description="milliseconds until the first token")
    tpot_ms: float = Field(0.2, ge=0, description="milliseconds per further token")
    spread: float = Field(0, ge=0, le=1, description="by how much queries differ: relative standard deviation")
    work_ms: float = Field(0, ge=0, description="processor time that each query takes before its first token")
    slots: int = Field(0, ge=0, description="queries that are answered at once, while others wait; 0: no limit")
    shared: str = Field(
        "", description="a lock file; the engines of several nodes on one machine take turns holding it"
    )
    shared_ms: float = Field(0, ge=0, description="milliseconds for which each query holds that lock")
    fail_indexes: tuple[int, ...] = Field((), description="indexes of queries that fail")
    break_at: int | None = Field(None, description="the query at which the engine breaks as a whole")
