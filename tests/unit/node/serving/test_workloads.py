"""Workloads that people serve, on the wire: to a server whose every request is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmark.rundir import NODES
from benchmark.settings import ResolvedSettings
from tests.openai_server import Counters, OpenAIServer
from tests.unit.building import RUN_ID, make_run

LIMITS = [{"metric": "queries.failed", "at_most": 0}, {"metric": "queries.unfinished", "at_most": 0}]


def measured(directory: Path, url: str, profile: dict[str, Any], **settings: Any) -> NodeResult:
    model = directory / "model"
    make_tiny_model(model)
    base = resolve(
        {
            **{"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_probes": "off"},
            **{"benchmark_engine": "endpoint", "benchmark_model": str(model), "benchmark_endpoint_model": "tiny"},
            **{"benchmark_endpoint_urls": [url], "benchmark_telemetry": False, **settings},
        }
    )
    changed = {
        **base.profile.model_dump(),
        "samples": None,
        "warmup": 0,
        "limits": LIMITS,
        "engine_options": {},
        **profile,
    }
    asked = ResolvedSettings.model_validate({"settings": base.settings, "profile": changed})
    run_dir = make_run(directory / RUN_ID, {"jw2": asked})
    return run(RunRequest(RUN_ID, "jw2", asked, run_dir / NODES / "jw2"))


def test_context_grows_and_is_reused(tmp_path: Path) -> None:
    options = {"conversations": 3, "turns": 3, "input_tokens": 40, "output_tokens": 8, "think_s": [0, 0.002]}
    profile = {
        **{"scenario": "conversations", "scenario_options": {"users": 2}, "dataset": "conversations"},
        **{"dataset_options": options, "generation": {"max_new_tokens": 8}, "prefix_caching": True},
    }
    with OpenAIServer(("tiny",)) as server:
        server.counters = Counters()
        result = measured(tmp_path, server.url, profile)
        sent = [body for body in server.seen if len(body.get("prompt", ())) > 20]
    assert result.verdict is not None
    assert result.verdict.valid, result.verdict.reasons
    assert sorted(len(body["prompt"]) for body in sent) == [40] * 3 + [88] * 3 + [136] * 3
    prompts = {tuple(body["prompt"]): body["seed"] for body in sent}
    for prompt in (prompt for prompt in prompts if len(prompt) > 40):
        before = prompt[:-48]
        # What was answered stands between: of the double, it depends on the seed of that query.
        assert prompt[-48:-40] == tuple((prompts[before] + position) % 1000 for position in range(8))
    assert result.serving is not None
    assert result.serving.prefix_cache is not None
    # Of 48 tokens that each turn adds, those before are known in whole blocks of 16.
    assert result.serving.prefix_cache.cached_tokens == 3 * (32 + 80)
    (group,) = aggregate(tmp_path / RUN_ID).groups
    assert group.key["prefix_cache"] == "prompts reused"
    assert result.dataset is not None
    assert result.dataset.sha256[:12] in group.key["dataset"]


@pytest.mark.parametrize("refused", [set(), {"ignore_eos", "min_tokens"}])
def test_a_trace_asks_for_exact_lengths(tmp_path: Path, refused: set[str]) -> None:
    """Also where a server knows no such field: what it then answers too short is counted."""
    rows = [{"timestamp": 10 * n, "input_length": 20 + n, "output_length": 1 + n, "hash_ids": [0, n]} for n in range(4)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(map(json.dumps, rows)))
    profile = {
        **{"scenario": "schedule", "scenario_options": {"arrivals": "trace"}, "dataset": "trace"},
        **{"dataset_options": {"block_tokens": 16}, "generation": {"max_new_tokens": 8}},
    }
    with OpenAIServer(("tiny",)) as server:
        server.rejects = refused
        result = measured(tmp_path, server.url, profile, benchmark_dataset_path=str(trace))
        sent = [body for body in server.seen if len(body.get("prompt", ())) >= 20 and not refused & set(body)]
    assert [(len(body["prompt"]), body["max_tokens"]) for body in sent] == [(20, 1), (21, 2), (22, 3), (23, 4)]
    assert len({tuple(body["prompt"][:16]) for body in sent}) == 1
    for body in sent:
        exactly = {} if refused else {"min_tokens": body["max_tokens"], "ignore_eos": True}
        assert {name: body[name] for name in ("min_tokens", "ignore_eos") if name in body} == exactly
    assert result.metrics is not None
    assert (result.metrics.queries.completed, result.metrics.output_tokens, result.metrics.answers.short) == (4, 10, 0)
    (row,) = aggregate(tmp_path / RUN_ID).nodes
    assert row.counted, row.reason
    assert row.rate == "of the trace"
