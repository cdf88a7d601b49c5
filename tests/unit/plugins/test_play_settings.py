"""Which settings of a play are held against each other: where nodes are measured, and where they are looked at."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from node_action import NodeFailure
from play_settings import resolve_play

from tests.unit.plugins.test_secrets import Loader

GROUP: dict[str, Any] = {
    "benchmark_group": "a",
    "benchmark_engine": "vllm",
    "benchmark_engine_options": {"pipeline_parallel_size": 2},
}
SYSTEM: dict[str, Any] = {
    "benchmark_system": "cluster",
    "benchmark_engine": "vllm",
    "benchmark_driver": "n2",
    "benchmark_min_nodes": 2,
}


def play(limit: str = "", **variables: Any) -> dict[str, Any]:
    """Return the variables of two nodes; `limit`: the one that --limit names."""
    nodes = {name: {"benchmark_profile": "mlperf-server", **variables} for name in ("n1", "n2")}
    named = [limit] if limit else list(nodes)
    limited = {"ansible_limit": limit} if limit else {}
    return {"ansible_play_hosts_all": named, "hostvars": nodes, "groups": {"gpu_nodes": list(nodes)}, **limited}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (GROUP, "--limit splits the group a: it names n1 and leaves out n2."),
        (SYSTEM, "benchmark_driver is n2, which is no node of this play"),
    ],
    ids=["group", "system"],
)
def test_one_node_is_looked_at_alone_and_not_measured(
    variables: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    with pytest.raises(NodeFailure) as refused:
        resolve_play(play("n1", **variables), Loader())
    assert said in str(refused.value)
    looked_at = resolve_play(play("n1", **variables), Loader(), measures=False)
    assert (list(looked_at.resolved), looked_at.measurable) == (["n1"], False)
    assert looked_at.groups_outside == ({"n2": "a"} if variables is GROUP else {})


def test_where_all_are_looked_at_they_have_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    given = play(**GROUP)
    given["hostvars"]["n2"]["benchmark_dtype"] = "bfloat16"
    with pytest.raises(NodeFailure, match=r"benchmark_dtype differs within the group a \[n1, n2\]"):
        resolve_play(given, Loader(), measures=False)
