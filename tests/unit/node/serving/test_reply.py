import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.interfaces import Answer
from benchmark.node.serving.reply import Reply, ReplyError, message


def read(*chunks: Any) -> Reply:
    """Return a reply of chunks that were read at 1, 2, 3, ..."""
    reply = Reply()
    for at, chunk in enumerate(chunks, start=1):
        reply.take(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode(), at)
    return reply


def chunk(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


def test_a_role_is_no_token_and_neither_is_the_usage() -> None:
    reply = read(ROLE, chunk(), chunk("a"), chunk("b"), chunk(finish="stop"), USAGE, b"[DONE]")
    assert (reply.first_ns, reply.last_ns, reply.done) == (3, 5, True)
    assert reply.answer(None) == Answer(4, 3, (), "ab")


def test_an_id_without_text_is_a_token() -> None:
    reply = read(chunk(token_ids=[1]), chunk("ab", token_ids=[2, 3]), chunk(finish="stop"), USAGE)
    assert (reply.first_ns, reply.last_ns) == (1, 3)
    assert reply.answer(None) == Answer(4, 3, (1, 2, 3), "ab")


def test_thinking_is_tokens_and_no_answer() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    reply = read(ROLE, thought, chunk("a", "stop"), USAGE)
    assert reply.first_ns == 2
    assert reply.answer(None).text == "a"


def test_the_prompts_own_ids_come_before_what_the_server_says() -> None:
    reply = read(chunk("a", "stop", token_ids=[9], prompt_token_ids=[1, 2]))
    assert reply.answer(5).input_tokens == 5
    assert reply.answer(None).input_tokens == 2


@pytest.mark.parametrize(
    "usage", [{"completion_tokens": "3"}, {"completion_tokens": -1}, {"completion_tokens": None}, 7]
)
def test_a_usage_that_is_no_count_counts_nothing(usage: Any) -> None:
    with pytest.raises(ReplyError, match=r"cannot be counted|unknown form"):
        read({**chunk("a", "stop"), "usage": usage}).answer(1)


@pytest.mark.parametrize(
    "odd",
    [b"[]", b'"x"', b'{"choices": 3}', b'{"choices": [3]}', b'{"choices": [{"text": 3}]}',
     b'{"choices": [{"token_ids": "abc"}]}', b'{"choices": [{"token_ids": ["a"]}]}', b"\xff", b"{"],
)  # fmt: skip
def test_what_makes_no_sense_is_an_error_in_a_sentence(odd: bytes) -> None:
    with pytest.raises(ReplyError, match="The server streamed"):
        read(odd)


FIELDS = ["choices", "usage", "error", "delta", "text", "token_ids", "finish_reason"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_but_an_answer_or_a_reply_error_comes_of_what_a_server_sends(data: bytes) -> None:
    reply = Reply()
    with suppress(ReplyError):
        reply.take(data, 1)
        assert reply.answer(None).output_tokens >= 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": [{"msg": "no"}]}, "[{'msg': 'no'}]"),
        ({"code": 1}, "{'code': 1}"),
        (["no"], "['no']"),
        ({"error": "a\n b"}, "a b"),
    ],
)
def test_the_message_is_found_in_the_usual_forms_of_an_error(content: Any, said: str) -> None:
    assert message(content) == said
