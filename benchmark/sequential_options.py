"""Options of the engine `sequential` in a profile. The controller uses them too."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """The profile's `engine_options`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    tensor_parallel: int = Field(
        1, ge=1, description="GPUs that the model is spread over, one process each; on the CPU, number of processes"
    )
