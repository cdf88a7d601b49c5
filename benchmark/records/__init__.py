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
    Roofline,
    SoloChange,
    Spread,
)
from benchmark.records.comparison import Comparison, GroupChange, MetricChange, NodeChange
from benchmark.records.cost import Cost
from benchmark.records.environment import Code, Environment, Gpu, GpuProcess
from benchmark.records.goodput import Goodput, Slo
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
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from benchmark.records.run import AgreedStart, Attempt, Controller, Failure, Interruption, Owner, ReadyNode, RunRecord
from benchmark.records.run_list import GroupInShort, RunInShort, RunList
from benchmark.records.run_verdict import (
    AgainstBaseline,
    BaselineChange,
    FailedNode,
    GroupFigures,
    RunVerdict,
    SlowNode,
)
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
    "AgainstBaseline",
    "AgreedStart",
    "Agreement",
    "AnswerCounts",
    "Attempt",
    "Audit",
    "BaselineChange",
    "Check",
    "ClusterResult",
    "Code",
    "Comparison",
    "Controller",
    "Cost",
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
    "FailedNode",
    "Failure",
    "Finding",
    "Goodput",
    "Gpu",
    "GpuProbes",
    "GpuProcess",
    "GpuTelemetry",
    "GpuTick",
    "Group",
    "GroupChange",
    "GroupFigures",
    "GroupInShort",
    "HardwareProbes",
    "History",
    "HistoryPoint",
    "Interruption",
    "LoadGenResult",
    "Measured",
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
    "Owner",
    "PeakSearch",
    "PrefixCache",
    "Probe",
    "QueryCounts",
    "ReadyNode",
    "Record",
    "Repeat",
    "RepeatRow",
    "Repeats",
    "Roofline",
    "Rouge",
    "RunInShort",
    "RunList",
    "RunOfNode",
    "RunRecord",
    "RunVerdict",
    "Sample",
    "Serving",
    "Shift",
    "Slo",
    "SlowNode",
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
