"""The records that the result files hold, shared by the node's half and the cluster's half.

Every record refuses fields that it does not know. A change of meaning raises SCHEMA_VERSION, and readers refuse a
version that they do not know by name.
"""

from __future__ import annotations

from benchmark.records.base import SCHEMA_VERSION, Count, Name, Nanoseconds, Record, Stage, Status, Text
from benchmark.records.cluster import (
    Agreement,
    ClusterResult,
    Disagreement,
    Drift,
    Finding,
    Group,
    MeasuredAttempt,
    NodeRow,
    Overlap,
    RepeatRow,
    Repeats,
    SoloChange,
    Spread,
)
from benchmark.records.comparison import Comparison, GroupChange, MetricChange, NodeChange
from benchmark.records.environment import Environment, Gpu, GpuProcess
from benchmark.records.history import DriftAt, History, HistoryPoint, NodeHistory, NodeRuns, RunOfNode, Shift
from benchmark.records.node import (
    Accuracy,
    Audit,
    DatasetInfo,
    EngineInfo,
    LoadGenResult,
    NodeResult,
    PeakSearch,
    Probe,
    Repeat,
    Rouge,
    Solo,
    Window,
)
from benchmark.records.run import AgreedStart, Attempt, Controller, Failure, Interruption, ReadyNode, RunRecord
from benchmark.records.sample import (
    MAX_UNSEEN,
    TOKENS_PER_PIECE,
    AnswerCounts,
    Distribution,
    Metrics,
    QueryCounts,
    Sample,
)
from benchmark.records.serving import PrefixCache, Serving
from benchmark.records.telemetry import CpuTime, Energy, GpuTelemetry, GpuTick, Telemetry, Tick
from benchmark.records.verdict import Check, Verdict

__all__ = [
    "MAX_UNSEEN",
    "SCHEMA_VERSION",
    "TOKENS_PER_PIECE",
    "Accuracy",
    "AgreedStart",
    "Agreement",
    "AnswerCounts",
    "Attempt",
    "Audit",
    "Check",
    "ClusterResult",
    "Comparison",
    "Controller",
    "Count",
    "CpuTime",
    "DatasetInfo",
    "Disagreement",
    "Distribution",
    "Drift",
    "DriftAt",
    "Energy",
    "EngineInfo",
    "Environment",
    "Failure",
    "Finding",
    "Gpu",
    "GpuProcess",
    "GpuTelemetry",
    "GpuTick",
    "Group",
    "GroupChange",
    "History",
    "HistoryPoint",
    "Interruption",
    "LoadGenResult",
    "MeasuredAttempt",
    "MetricChange",
    "Metrics",
    "Name",
    "Nanoseconds",
    "NodeChange",
    "NodeHistory",
    "NodeResult",
    "NodeRow",
    "NodeRuns",
    "Overlap",
    "PeakSearch",
    "PrefixCache",
    "Probe",
    "QueryCounts",
    "ReadyNode",
    "Record",
    "Repeat",
    "RepeatRow",
    "Repeats",
    "Rouge",
    "RunOfNode",
    "RunRecord",
    "Sample",
    "Serving",
    "Shift",
    "Solo",
    "SoloChange",
    "Spread",
    "Stage",
    "Status",
    "Telemetry",
    "Text",
    "Tick",
    "Verdict",
    "Window",
]
