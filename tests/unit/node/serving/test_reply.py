import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.interfaces import Answer
from benchmark.node.serving.reply import APART_NS, Reply, ReplyError

STEP_NS = APART_NS


def read(*chunks: Any, end: bool = True) -> Reply:
    """Return a reply of chunks that were read a step apart, the first at one step."""
    reply, at_ns = Reply(), 0
    for chunk in chunks:
        at_ns += STEP_NS
        data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
        reply.feed(b"data: " + data + b"\n\n", at_ns)
    if end:
        reply.end(at_ns + STEP_NS)
    return reply


def close(reply: Reply, data: bytes = b"") -> Answer:
    """Send the last of a stream and return the answer."""
    reply.feed(data, 99 * STEP_NS)
    reply.end(100 * STEP_NS)
    return reply.answer(1)


def chunk(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]}


def delta(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": members}]}


def usage(output: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": output, **more}}


ROLE = delta(role="assistant", content="")
STOP = chunk(finish="stop")
DONE = b"[DONE]"


def steps(reply: Reply) -> tuple[float, float]:
    """Return when the first and the last output were read, in steps."""
    assert reply.first_ns is not None
    return reply.first_ns / STEP_NS, reply.last_ns / STEP_NS


def counts(answer: Answer) -> tuple[int, int, int | None, int | None]:
    return answer.input_tokens, answer.output_tokens, answer.pieces, answer.usage_tokens


def test_a_role_is_no_token_and_neither_is_the_usage() -> None:
    reply = read(ROLE, chunk(), chunk("a"), chunk("b"), STOP, usage(3), DONE)
    assert steps(reply) == (3, 5)
    assert counts(reply.answer(None)) == (4, 3, 3, None), "the end of sequence has no text and came last"
    assert reply.answer(None).text == "ab"


def test_an_id_without_text_is_a_token() -> None:
    reply = read(chunk(token_ids=[1]), chunk("ab", token_ids=[2, 3]), STOP, usage(3))
    assert steps(reply) == (1, 3)
    assert reply.answer(None).token_ids == (1, 2, 3)


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
ARGUMENTS = {"index": 0, "function": {"arguments": '{"a":'}}


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"reasoning_content": "hm"}, "reasoning"),
        ({"reasoning": "hm"}, "reasoning"),
        ({"thinking": "hm"}, "reasoning"),
        ({"refusal": "No."}, "refusal"),
        ({"tool_calls": [CALL]}, "tool calls"),
        ({"tool_calls": [ARGUMENTS]}, "tool calls"),
        ({"tool_calls": [{"index": 0, "function": {"arguments": {"x": 1}}}]}, "tool calls"),
        ({"tool_calls": [{"index": 0, "custom": {"input": "ls"}}]}, "tool calls"),
        ({"function_call": {"arguments": "{"}}, "tool calls"),
        ({"audio": {"id": "audio_1", "transcript": "Yes"}}, "audio"),
        ({"audio": {"data": "AAAA"}}, "audio"),
        ({"content": [{"type": "text", "text": "a"}]}, "content"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, "content"),
    ],
)
def test_any_output_is_the_first_token(members: dict[str, Any], kind: str) -> None:
    reply = read(ROLE, delta(**members), chunk("a", "stop"), usage(2))
    assert steps(reply) == (2, 3)
    assert reply.kinds == {kind, "content"}
    assert reply.answer(None).pieces == 2


@pytest.mark.parametrize(
    "members",
    [
        {"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "audio": None},
        {"content": [], "tool_calls": []},
        {"content": [{"type": "text", "text": ""}]},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"arguments": ""}}]},
        {"audio": {"id": "audio_1", "expires_at": 1700000000}},
        {"provider": "x", "annotations": [1]},
    ],
)
def test_what_holds_no_output_is_no_token(members: dict[str, Any]) -> None:
    assert steps(read(delta(**members), chunk("a", "stop"), usage(1)))[0] == 2


def test_content_in_parts_is_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read(delta(content=parts), chunk("c", "stop"), usage(2)).answer(None).text == "abc"


def test_thinking_is_tokens_and_no_text() -> None:
    assert read(delta(reasoning="hm"), chunk("a", "stop"), usage(2)).answer(None).text == "a"


def test_a_whole_message_in_one_event_is_one_piece() -> None:
    message = {"message": {"content": "a b c"}, "finish_reason": "stop"}
    whole = {"choices": [message], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}
    answer = read(whole, DONE).answer(None)
    assert (answer.text, answer.pieces, answer.output_tokens) == ("a b c", 1, 3)


def test_chunks_that_were_read_together_are_one_piece() -> None:
    reply = Reply()
    for at_ns in (1, 2, APART_NS, 4 * APART_NS, 5 * APART_NS - 1):
        reply.feed(b"data: " + json.dumps(chunk("a")).encode() + b"\n\n", at_ns)
    assert reply.pieces == 2


def test_the_prompts_own_ids_come_before_what_the_server_says() -> None:
    reply = read(chunk("a", "stop", token_ids=[9], prompt_token_ids=[1, 2]))
    assert reply.answer(5).input_tokens == 5
    assert reply.answer(None).input_tokens == 2


A = [chunk("a")] * 4


@pytest.mark.parametrize(
    ("chunks", "output", "reported"),
    [
        ([*A, STOP, usage(4)], 4, None),
        ([*A, STOP, usage(6)], 6, None),
        ([*A, STOP, usage(4.0)], 4, None),
        ([*A, STOP, usage(1)], 4, 1),
        ([*A, STOP, usage(0)], 4, 0),
        ([usage(4), *A, STOP], 4, None),
        ([usage(0), *A, STOP], 4, 0),
        ([usage(0), *A, STOP, usage(4)], 4, None),
        ([usage(1), *A, STOP, usage(5), usage(0)], 5, None),
        ([{**chunk("a"), "usage": {"completion_tokens": n, "prompt_tokens": 4}} for n in (1, 2, 3)] + [STOP], 3, None),
        ([chunk("a", token_ids=[n]) for n in range(4)] + [STOP, usage(4)], 4, None),
        ([chunk("a", token_ids=[n]) for n in range(4)] + [STOP, usage(5)], 4, 5),
        ([chunk("a", token_ids=[n]) for n in range(4)] + [STOP, usage(0)], 4, 0),
    ],
)
def test_by_what_tokens_are_counted(chunks: list[Any], output: int, reported: int | None) -> None:
    """Ids come first, then the usage; one that is below the chunks that held output is wrong, and recorded beside."""
    for more in ([], [DONE]):
        answer = read(*chunks, *more).answer(None)
        assert (answer.output_tokens, answer.usage_tokens) == (output, reported)


def test_a_usage_within_a_choice_and_the_cached_part_are_read() -> None:
    last = chunk("a", "stop", usage={"prompt_tokens": 9, "completion_tokens": 1})
    assert counts(read(last).answer(None))[:2] == (9, 1)
    answer = read(chunk("a", "stop"), usage(1, prompt_tokens_details={"cached_tokens": 3})).answer(None)
    assert answer.cached_tokens == 3


@pytest.mark.parametrize("count", ["3", -1, None, True, 2.5, float("nan"), {}])
def test_a_usage_that_is_no_count_counts_nothing(count: Any) -> None:
    with pytest.raises(ReplyError, match="cannot be counted"):
        read(chunk("a", "stop"), usage(count)).answer(1)


def test_an_answer_is_whole_with_its_usage() -> None:
    reply = read(chunk("a"), STOP, end=False)
    assert not reply.whole
    reply.feed(b"data: " + json.dumps(usage(2)).encode() + b"\n\n", 9 * STEP_NS)
    assert (reply.whole_ns, reply.last_ns) == (9 * STEP_NS, 2 * STEP_NS)
    assert read(chunk("a"), DONE, end=False).whole
    assert not read(usage(0), chunk("a"), STOP, end=False).whole, "that usage came too early: another may follow"


def test_the_last_event_counts_without_its_empty_line() -> None:
    reply = read(chunk("a"), STOP, end=False)
    reply.feed(b"data: " + json.dumps(usage(2)).encode(), 9 * STEP_NS)
    reply.end(10 * STEP_NS)
    assert counts(reply.answer(None)) == (4, 2, 2, None)


@pytest.mark.parametrize(
    "cut", [b'data: {"choices": [{"text": "b", "finish_reason": "st', b"data: [DON", b"data: ", b"da", b": kee", b""]
)
def test_a_cut_answer_is_never_whole(cut: bytes) -> None:
    reply = read(chunk("a"), end=False)
    reply.feed(cut, 3 * STEP_NS)
    with pytest.raises(ReplyError, match=r"ended too early|broke off: da"):
        close(reply)


@pytest.mark.parametrize(
    "keep_alive",
    [
        b"data: \n\n",
        b"data:\n\n",
        b"data\n\n",
        b"data: : ping\n\n",
        b": ping\n\n",
        b"event: ping\ndata: now\n\n",
        b"\n\n\n",
    ],
)
def test_keep_alives_are_nothing(keep_alive: bytes) -> None:
    reply = Reply()
    reply.feed(keep_alive, 1)
    for part in (chunk("a"), chunk("b", "stop"), usage(2)):
        reply.feed(b"data: " + json.dumps(part).encode() + b"\n\n" + keep_alive, 2)
    assert counts(reply.answer(None))[:2] == (4, 2)


@pytest.mark.parametrize("reason", ["abort", "error", "content_filter", "cancelled", "insufficient_system_resource"])
def test_an_answer_that_the_server_gave_up_is_none(reason: str) -> None:
    with pytest.raises(ReplyError, match=f"finish_reason is {reason}"):
        read(chunk("a"), chunk(finish=reason), usage(1)).answer(1)


def test_a_reason_that_is_none_in_words_ends_nothing() -> None:
    with pytest.raises(ReplyError, match="ended too early"):
        read(chunk("a", "null")).answer(1)


@pytest.mark.parametrize(
    "odd",
    [b"[]", b'"x"', b'{"choices": 3}', b'{"choices": [3]}', b'{"choices": [{"text": 3}]}',
     b'{"choices": [{"token_ids": "abc"}]}', b'{"choices": [{"token_ids": ["a"]}]}', b"\xff", b"{"],
)  # fmt: skip
def test_what_makes_no_sense_is_an_error_in_a_sentence(odd: bytes) -> None:
    with pytest.raises(ReplyError, match="The server streamed"):
        read(odd)


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"error": {"message": "out of memory"}}\n\n',
        b'data: {"object": "error", "message": "out of memory"}\n\n',
        b'data: {"choices": [{"error": {"message": "out of memory"}}]}\n\n',
        b"event: error\ndata: out of memory\n\n",
        b'event: error\ndata: {"detail": "out of memory"}\n\n',
        b'error: {"message": "out of memory"}\n\n',
        b'{"error": {"message": "out of memory"}}',
        b'{\n "error": {\n  "message": "out of memory"\n }\n}\n',
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_is_reported_in_the_servers_own_words(broken: bytes, begun: bool) -> None:
    reply = read(chunk("a"), end=False) if begun else Reply()
    with pytest.raises(ReplyError, match=r"broke off.*: out of memory$|did not stream, but answered: out of memory$"):
        close(reply, broken)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>",
            "502 Bad Gateway: nginx",
        ),
        (b"Service Unavailable", "Service Unavailable"),
        (b'{"choices": [{"message": {"content": "hello"}}]}', "hello"),
    ],
)
def test_what_is_no_stream_is_reported_by_its_words(body: bytes, words: str) -> None:
    reply = Reply()
    with pytest.raises(ReplyError, match=f"The server did not stream, but answered: .*{words}"):
        close(reply, body)


FIELDS = [
    "choices",
    "usage",
    "error",
    "delta",
    "text",
    "token_ids",
    "finish_reason",
    "content",
    "tool_calls",
    "message",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"))
def test_whatever_a_server_sends_is_an_answer_or_a_reply_error(data: bytes) -> None:
    reply = Reply()
    with suppress(ReplyError):
        reply.feed(data, 1)
        reply.end(2)
        assert reply.answer(None).output_tokens >= 0
