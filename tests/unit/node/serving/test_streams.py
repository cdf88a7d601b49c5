"""From what a server sends, and when, to TTFT, TPOT, counts and verdict: held against a reading of its script alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from benchmark.columns import Columns
from benchmark.metrics import compute
from benchmark.node.serving.reply import APART_NS, Reply
from benchmark.node.serving.sse import BOM
from benchmark.profiles import load_profile
from benchmark.records import Metrics, Sample, Verdict
from benchmark.verdict import Findings, judge

MS = 1_000_000
TTFT_LIMIT_MS, TPOT_LIMIT_MS = 300, 40
LIMITS = ({"metric": "ttft_ms.p99", "at_most": TTFT_LIMIT_MS}, {"metric": "tpot_ms.p99", "at_most": TPOT_LIMIT_MS})
PROFILE = load_profile("quick").model_validate(
    {**load_profile("quick").model_dump(), "limits": LIMITS, "accuracy": "off", "generation": {"max_new_tokens": 64}}
)
MEMBERS = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "audio", "token_ids")


@dataclass(frozen=True)
class Chunk:
    """One chunk with output: read so long after the one before, with so many tokens in the member of that name."""

    gap_ns: int
    tokens: int
    member: str


@dataclass(frozen=True)
class Script:
    """One answer as a server sends it. `usage`: what it says of the tokens; None: it says nothing."""

    chunks: tuple[Chunk, ...]
    finish_gap_ns: int
    done_gap_ns: int
    usage: int | None
    newline: str
    noise: str
    mark: bool
    sizes: tuple[int, ...]


GAPS = st.integers(0, 60 * MS) | st.sampled_from([0, 1, APART_NS - 1, APART_NS])


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    with_ids = draw(st.booleans())
    members = st.just("token_ids") if with_ids else st.sampled_from(MEMBERS[:-1])
    chunks = draw(st.lists(st.builds(Chunk, GAPS, st.integers(1, 4), members), min_size=1, max_size=16))
    tokens = sum(chunk.tokens for chunk in chunks)
    usage = draw(st.sampled_from([tokens, tokens, tokens, tokens + 1, max(0, tokens - 1), 0, 1]))
    return Script(
        chunks=tuple(chunks),
        finish_gap_ns=draw(GAPS),
        done_gap_ns=draw(st.sampled_from([0, 1000 * MS])),
        usage=None if with_ids and draw(st.booleans()) else usage,
        newline=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        noise=draw(st.sampled_from(["", ": keep-alive", "data: ", "data: : comment", "event: ping"])),
        mark=draw(st.booleans()),
        sizes=tuple(draw(st.lists(st.integers(1, 30), max_size=20))),
    )


def delta(chunk: Chunk) -> dict[str, Any]:
    text: Any = "x" * chunk.tokens
    if chunk.member == "token_ids":
        return {"index": 0, "text": "", "token_ids": list(range(chunk.tokens))}
    if chunk.member == "tool_calls":
        text = [{"index": 0, "function": {"arguments": text}}]
    elif chunk.member == "audio":
        text = {"id": "a", "transcript": text}
    return {"index": 0, "delta": {chunk.member: text}}


def play(script: Script) -> Reply:
    """Return the reply to the script: every event at its time, in pieces cut anywhere."""
    reply, at_ns = Reply(), 0
    sizes = list(script.sizes)

    def send(text: str) -> None:
        data = text.encode()
        if script.mark and at_ns == 0:
            data = BOM + data
        while data:
            size = sizes.pop() if sizes else len(data)
            reply.feed(data[:size], at_ns)
            data = data[size:]

    def line(content: Any) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        noise = script.noise + 2 * script.newline if script.noise else ""
        return f"{noise}data: {text}" + 2 * script.newline

    send(line({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    for chunk in script.chunks:
        at_ns += chunk.gap_ns
        send(line({"choices": [delta(chunk)]}))
    at_ns += script.finish_gap_ns
    send(line({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    if script.usage is not None:
        send(line({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": script.usage}}))
    at_ns += script.done_gap_ns
    send(line("[DONE]"))
    reply.end(at_ns)
    return reply


def sample_of(index: int, reply: Reply) -> Sample:
    answer = reply.answer(5)
    return Sample(
        index=index,
        prompt_id="p",
        scheduled_ns=0,
        issued_ns=0,
        first_token_ns=reply.first_ns,
        completed_ns=reply.last_ns,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        pieces=answer.pieces,
        first_piece_tokens=answer.first_piece_tokens,
        usage_tokens=answer.usage_tokens,
        token_ids=answer.token_ids,
    )


@dataclass(frozen=True)
class Expected:
    """What one answer comes to, read from the script alone."""

    ttft_ms: float | None
    tpot_ms: float | None
    tokens: int
    differ_by: int
    seen: str

    @classmethod
    def of(cls, script: Script) -> Expected:
        times, at_ns = [], 0
        for chunk in script.chunks:
            at_ns += chunk.gap_ns
            times.append(at_ns)
        end_ns = at_ns + script.finish_gap_ns
        pieces, first_ids = 1, 0
        for chunk, before, after in zip(script.chunks, [times[0], *times], times, strict=False):
            if after - before >= APART_NS:
                pieces += 1
            if pieces == 1 and chunk.member == "token_ids":
                first_ids += chunk.tokens
        ids = sum(chunk.tokens for chunk in script.chunks if chunk.member == "token_ids")
        tokens = ids or max(script.usage or 0, len(script.chunks))
        if script.finish_gap_ns >= APART_NS and tokens == pieces + 1:
            pieces += 1
        differ_by = 0 if script.usage is None else abs(script.usage - tokens)
        ttft_ms, tpot_ms, seen = times[0] / MS, None, "all"
        if tokens > 1:
            tpot_ms = (end_ns - times[0]) / (tokens - 1) / MS
        if tokens > 1 and pieces == 1:
            return cls(None, None, tokens, differ_by, "one piece")
        if tokens > 2 * pieces and first_ids != 1:
            return cls(ttft_ms, None, tokens, differ_by, "coarse")
        return cls(ttft_ms, tpot_ms, tokens, differ_by, seen)


def worst(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def measure(replies: list[Reply]) -> tuple[Metrics, Verdict]:
    samples = [sample_of(index, reply) for index, reply in enumerate(replies)]
    metrics = compute(Columns.of(samples), len(samples))
    return metrics, judge(PROFILE, Findings(metrics), 0.5, "complete")


@given(st.lists(scripts(), min_size=1, max_size=5))
def test_any_stream_comes_to_what_its_script_says(answers: list[Script]) -> None:
    metrics, verdict = measure([play(script) for script in answers])
    expected = [Expected.of(script) for script in answers]
    for one in expected:
        event(one.seen)
    assert metrics.output_tokens == sum(one.tokens for one in expected)
    counts = metrics.answers
    assert counts.one_piece == sum(one.seen == "one piece" for one in expected)
    assert counts.coarse == sum(one.seen == "coarse" for one in expected)
    assert counts.miscounted == sum(one.differ_by > 0 for one in expected)
    assert counts.miscounted_tokens == sum(one.differ_by for one in expected)

    # Of five answers, one that was not seen is too many.
    ttft_ms = None if counts.one_piece else worst([one.ttft_ms for one in expected])
    tpot_ms = None if counts.one_piece or counts.coarse else worst([one.tpot_ms for one in expected])
    for found, right in ((metrics.ttft_ms, ttft_ms), (metrics.tpot_ms, tpot_ms)):
        assert (found is None) == (right is None)
        assert found is None or right is None or abs(found.max - right) < 1e-9
    assert verdict.valid == (
        ttft_ms is not None
        and ttft_ms <= TTFT_LIMIT_MS
        and tpot_ms is not None
        and tpot_ms <= TPOT_LIMIT_MS
        and counts.miscounted_tokens <= 0.02 * metrics.output_tokens
    )
    assert verdict.valid == (not verdict.reasons)


def script(*gaps_ms: float, tokens: int = 1, member: str = "content", **changes: Any) -> Script:
    chunks = tuple(Chunk(int(gap * MS), tokens, member) for gap in gaps_ms)
    fields: dict[str, Any] = {
        "usage": tokens * len(gaps_ms),
        **{"finish_gap_ns": 0, "done_gap_ns": 0, "newline": "\n", "noise": "", "mark": False, "sizes": ()},
    }
    return Script(chunks=chunks, **{**fields, **changes})


def test_answers_in_one_piece_have_no_ttft_and_no_tpot() -> None:
    held_back = [play(script(411, *[0.02] * 15)) for _ in range(20)]
    metrics, verdict = measure(held_back)
    assert (metrics.ttft_ms, metrics.ttft_from_issue_ms, metrics.tpot_ms) == (None, None, None)
    assert metrics.latency_ms is not None
    assert [check.passed for check in verdict.checks[:2]] == [False, False]
    assert "P99 TPOT is undefined" in " ".join(verdict.reasons)
    assert "20 of 20 answers arrived in one piece" in " ".join(verdict.reasons)


def test_pieces_of_eight_tokens_have_no_tpot() -> None:
    metrics, verdict = measure([play(script(200, 211, tokens=8))])
    assert metrics.ttft_ms is not None
    assert metrics.tpot_ms is None
    assert "1 of 1 answers arrived in pieces of more than 2 tokens" in " ".join(verdict.reasons)


def test_a_first_token_alone_is_all_that_tpot_hangs_on() -> None:
    first = Chunk(200 * MS, 1, "token_ids")
    others = Chunk(150 * MS, 15, "token_ids")
    metrics, verdict = measure([play(replace(script(1, usage=16), chunks=(first, others)))])
    assert metrics.answers.coarse == 0
    assert metrics.tpot_ms is not None
    assert metrics.tpot_ms.max == 10
    assert verdict.valid, verdict.reasons


def test_a_call_of_a_tool_has_its_own_first_token() -> None:
    metrics, verdict = measure([play(script(10, *[25] * 15, member="tool_calls"))])
    assert metrics.ttft_ms is not None
    assert metrics.tpot_ms is not None
    assert (metrics.ttft_ms.p50, metrics.tpot_ms.p50) == (10, 25)
    assert verdict.valid


def test_one_answer_of_two_hundred_may_go_unseen() -> None:
    whole, held_back = play(script(10, *[25] * 15)), play(script(411, *[0.02] * 15))
    metrics, verdict = measure([held_back, *[whole] * 199])
    assert verdict.valid
    assert metrics.ttft_ms is not None
    assert (metrics.ttft_ms.count, metrics.answers.one_piece) == (199, 1)
    assert not measure([*[held_back] * 3, *[whole] * 197])[1].valid


def test_a_usage_that_contradicts_the_stream_is_invalid() -> None:
    metrics, verdict = measure([play(script(10, *[25] * 15, usage=1))])
    assert (metrics.output_tokens, metrics.answers.miscounted_tokens) == (16, 15)
    assert "In 1 of 1 answers the server's usage and its stream have different numbers of tokens" in " ".join(
        verdict.reasons
    )
