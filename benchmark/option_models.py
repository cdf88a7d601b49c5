"""Which engines, scenarios and datasets there are, and what can be asked of each."""

from __future__ import annotations

from pydantic import BaseModel

from benchmark import (
    closed_loop_options,
    continuous_options,
    loadgen_options,
    schedule_options,
    sequential_options,
    simulated_options,
)
from benchmark.dataset_options import CnnDailymailOptions, ConversationsOptions, SyntheticOptions, TraceOptions
from benchmark.profiles import SIMULATED

CLOSED_LOOP = "closed_loop"
SERVED, CONTINUOUS, SEQUENTIAL = "endpoint", "continuous", "sequential"
# What can be asked of each; None: nothing. Engines that are provisioned declare their options.
ENGINE_OPTIONS: dict[str, type[BaseModel] | None] = {
    CONTINUOUS: continuous_options.Options,
    SIMULATED: simulated_options.Options,
    SEQUENTIAL: sequential_options.Options,
    SERVED: None,
}
SCENARIO_OPTIONS: dict[str, type[BaseModel] | None] = {
    "loadgen": loadgen_options.Options,
    "schedule": schedule_options.Options,
    "conversations": schedule_options.ConversationOptions,
    "closed_loop": closed_loop_options.Options,
}
DATASET_OPTIONS: dict[str, type[BaseModel] | None] = {
    "cnn_dailymail": CnnDailymailOptions,
    "synthetic": SyntheticOptions,
    "conversations": ConversationsOptions,
    "trace": TraceOptions,
    "curated": None,
}
# Those whose prompts are token ids without text, whose prompts have references, and whose file a user may give.
WITHOUT_TEXT, WITH_REFERENCES = ("synthetic", "conversations", "trace"), ("cnn_dailymail",)
WITH_FILE = ("cnn_dailymail", "trace")
