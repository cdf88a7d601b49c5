"""The engines, scenarios and datasets, and the options of each."""

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
# The options of each; None: it has none. Provisioned engines declare their own.
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
# Datasets with prompts of token ids without text, with references, and with a file that a user may give.
WITHOUT_TEXT, WITH_REFERENCES = ("synthetic", "conversations", "trace"), ("cnn_dailymail",)
WITH_FILE = ("cnn_dailymail", "trace")
