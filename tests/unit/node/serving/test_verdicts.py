"""Whole runs of the engine `endpoint` against a server that streams oddly: what the result says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmark.files import read_samples
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmark.settings import ResolvedSettings
from benchmark.text.node_result import render_node
from tests.openai_server import DONE, OpenAIServer, event, finish, token, usage, whole

COUNT = 5
TOKENS = 16
LIMITS = [{"metric": "ttft_ms.p99", "at_most": 1e6}, {"metric": "tpot_ms.p99", "at_most": 1e6}]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        running.answer = steady
        yield running


async def steady(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """Answer as `whole` does, each token at its own time."""
    async for part in whole(request, body):
        await asyncio.sleep(0.005)
        yield part


async def held_back(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """Answer as `steady` does, behind a proxy that sends it on only when it has all."""
    yield b"".join([part async for part in steady(request, body)])


def measure(
    server: OpenAIServer, directory: Path, profile: dict[str, Any] | None = None, **settings: Any
) -> NodeResult:
    base = resolve(
        {
            "benchmark_device": "cpu",
            "benchmark_engine": "endpoint",
            "benchmark_endpoint_urls": [server.url],
            "benchmark_endpoint_model": "served",
            "benchmark_telemetry": False,
            "benchmark_probes": "off",
            **settings,
        }
    )
    changed = {
        **base.profile.model_dump(),
        "samples": COUNT,
        "warmup": 0,
        "accuracy": "off",
        "limits": LIMITS,
        "generation": {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS},
        **(profile or {}),
    }
    resolved = ResolvedSettings.model_validate({"settings": base.settings, "profile": changed})
    return run(RunRequest("r1", "jw2", resolved, directory))


def reasons(result: NodeResult) -> str:
    assert result.verdict is not None
    assert result.verdict.valid == (not result.verdict.reasons)
    return " ".join(result.verdict.reasons)


def test_a_steady_stream_is_valid(server: OpenAIServer, tmp_path: Path) -> None:
    result = measure(server, tmp_path)
    assert reasons(result) == ""
    assert result.serving is not None
    assert result.serving.outputs == {"content": COUNT}
    assert result.serving.tail_ms is not None
    assert "Answers" not in render_node(result)


def test_an_answer_in_one_piece_has_no_ttft_and_no_tpot(server: OpenAIServer, tmp_path: Path) -> None:
    server.answer = held_back
    result = measure(server, tmp_path)
    assert result.metrics is not None
    assert (result.metrics.ttft_ms, result.metrics.tpot_ms) == (None, None)
    assert "P99 TPOT is undefined" in reasons(result)
    assert f"{COUNT} of {COUNT} answers arrived in one piece" in reasons(result)
    assert "one piece" in render_node(result).replace("\n", " ")


def test_limits_on_times_that_were_not_seen_are_not_passed(server: OpenAIServer, tmp_path: Path) -> None:
    server.answer = held_back
    options = {"scenario": "Server", "min_duration_ms": 300, "min_query_count": 20}
    profile: dict[str, Any] = {"scenario": "loadgen", "scenario_options": options, "samples": None, "limits": []}
    result = measure(server, tmp_path, profile, benchmark_target_qps=40)
    assert result.loadgen is not None
    assert "LoadGen's TTFT and TPOT are not those of tokens." in reasons(result)
    offline = {**profile, "scenario_options": {**options, "scenario": "Offline"}}
    (tmp_path / "offline").mkdir()
    reported = reasons(measure(server, tmp_path / "offline", offline, benchmark_target_qps=40))
    assert "one piece" not in reported, "there they decide nothing"


def test_a_query_ends_with_its_last_output(server: OpenAIServer, tmp_path: Path) -> None:
    """The server holds back the end of each stream until the next query is there."""
    asked = asyncio.Queue[None]()

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        asked.put_nowait(None)
        async for part in steady(request, body):
            if part == DONE and body["max_tokens"] == TOKENS and body["seed"] - first_seed < COUNT - 1:
                await asyncio.wait_for(asked.get(), 60)
            yield part

    first_seed = resolve({}).profile.generation.seed
    server.answer = answer
    generation = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "seed": first_seed}
    assert reasons(measure(server, tmp_path, {"generation": generation})) == ""


def test_no_query_counts_as_scheduled_before_it_could_be_issued(server: OpenAIServer, tmp_path: Path) -> None:
    late_s = 0.2

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async for part in steady(request, body):
            if b'"usage"' in part:
                await asyncio.sleep(late_s)
            yield part

    server.answer = answer
    measure(server, tmp_path)
    samples = read_samples(tmp_path / "samples.jsonl")
    for before, after in pairwise(samples):
        assert after.scheduled_ns is not None
        assert before.completed_ns is not None
        assert after.scheduled_ns - before.completed_ns >= late_s * 1e9, "the usage came so long after the last token"


def fixed(count: int, counted: int | None = None, ids: bool = False) -> Any:
    """Return an answer of so many tokens, whatever was asked, of which the server says there are `counted`."""

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        if body["max_tokens"] < TOKENS:  # a probe
            async for part in whole(request, body):
                yield part
            return
        for number in range(count):
            await asyncio.sleep(0.005)
            yield token(request, "x", **({"token_ids": [number]} if ids else {}))
        yield finish(request)
        yield usage(count if counted is None else counted)
        yield DONE

    return answer


def test_answers_of_another_length_than_was_asked_are_a_reason(server: OpenAIServer, tmp_path: Path) -> None:
    server.answer = fixed(5)
    assert f"{COUNT} of {COUNT} answers are shorter than requested (exactly 16 tokens)" in reasons(
        measure(server, tmp_path)
    )


def test_more_tokens_than_may_be_are_an_error(server: OpenAIServer, tmp_path: Path) -> None:
    server.answer = fixed(19)
    profile = {"limits": [{"metric": "queries.failed", "at_most": 0}]}
    assert "The answer has 19 tokens; at most 16 were requested." in reasons(measure(server, tmp_path, profile))


@pytest.mark.parametrize(
    ("answer", "differ"),
    [
        (fixed(16, counted=1), "by 75 in all, with 80 counted"),
        (fixed(16, counted=0), "by 80 in all, with 80 counted"),
        (fixed(15, counted=16, ids=True), "by 5 in all, with 75 counted"),
    ],
)
def test_contradicting_counts_are_a_figure_with_a_limit(
    answer: Any, differ: str, server: OpenAIServer, tmp_path: Path
) -> None:
    server.answer = answer
    result = measure(server, tmp_path)
    assert result.metrics is not None
    assert result.metrics.queries.failed == 0
    assert result.metrics.answers.miscounted == COUNT
    assert differ in reasons(result)
    assert "shorter" not in reasons(result), "by one of the two counts it is as long as was asked"


def test_a_call_of_a_tool_is_output(server: OpenAIServer, tmp_path: Path) -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        if "chat" not in request.path or body["max_tokens"] < TOKENS:
            async for part in whole(request, body):
                yield part
            return
        for number in range(TOKENS):
            await asyncio.sleep(0.005)
            call = {"index": 0, "function": {"arguments": str(number)}}
            yield event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
        yield finish(request, "tool_calls")
        yield usage(TOKENS)
        yield DONE

    server.answer = answer
    result = measure(server, tmp_path)
    assert reasons(result) == ""
    assert result.metrics is not None
    assert result.metrics.tpot_ms is not None
    assert result.metrics.tpot_ms.min >= 5 * (TOKENS - 1) / TOKENS
    assert result.serving is not None
    assert result.serving.outputs == {"tool calls": COUNT}
