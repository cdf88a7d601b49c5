"""Which fields a server takes, and which a profile cannot do without."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.errors import InputError, SetupError
from benchmark.node.interfaces import Prompt, Query
from benchmark.profiles import Generation
from tests.openai_server import OpenAIServer, Refusal, parts
from tests.unit.node.endpoint.asked import Known, Loaded
from tests.unit.node.heard import Heard

NEWER = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
FIXED = (
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
)
TEXT = Query(index=0, prompt=Prompt(id="p", text="Explain photosynthesis."), seed=5)
CHAT: dict[str, Any] = {"benchmark_endpoint_api": "chat"}


def newer_chat_model(body: dict[str, Any]) -> str | None:
    """Refuse what OpenAI's newer chat models refuse, in their order."""
    if "max_tokens" in body:
        return NEWER
    if body.get("temperature", 1) != 1:
        return FIXED
    return "Unsupported parameter: 'top_p'" if "top_p" in body else None


def refused(engine: Known) -> Any:
    return engine.info.details["refused_fields"]


def test_the_newer_name_of_the_length_is_used(server: OpenAIServer, loaded: Loaded) -> None:
    server.takes = newer_chat_model
    engine = loaded(server.url, generation=Generation(max_new_tokens=6, temperature=1), **CHAT)
    assert refused(engine) == {"chat": ["max_tokens", "top_p"]}
    heard = Heard()
    engine.submit(TEXT, heard)
    heard.wait(1)
    sent = server.seen[-1]
    assert (sent["max_completion_tokens"], sent["temperature"], sent["seed"]) == (6, 1, 5)
    assert "max_tokens" not in sent
    assert "top_p" not in sent


def test_a_refused_temperature_is_an_error_in_the_servers_words(server: OpenAIServer, loaded: Loaded) -> None:
    server.takes = newer_chat_model
    with pytest.raises(InputError) as error:
        loaded(server.url, generation=Generation(temperature=0.7), **CHAT)
    assert str(error.value) == (
        f"The profile asks for temperature = 0.7, which /v1/chat/completions does not accept at {server.url} "
        f"(HTTP 400: {FIXED}): use a profile that works without it, or another server."
    )


def test_the_servers_fixed_temperature_is_left_out_and_noted(server: OpenAIServer, loaded: Loaded) -> None:
    server.rejects = {"temperature"}
    engine = loaded(server.url, generation=Generation(temperature=1), **CHAT)
    assert refused(engine) == {"chat": ["temperature"]}
    heard = Heard()
    engine.submit(Query(index=0, prompt=TEXT.prompt, seed=5, greedy=True), heard)
    heard.wait(1)
    assert "accepts no temperature" in heard.errors[0]
    with pytest.raises(InputError, match="asks for temperature = 0, which"):
        loaded(server.url, generation=Generation(temperature=0), **CHAT)


@pytest.mark.parametrize(
    ("field", "wants", "without"),
    [
        ("top_p", {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7}),
        ("top_k", {"temperature": 0.7, "top_k": 5}, {"temperature": 0, "top_k": 5}),
    ],
)
def test_choosing_of_tokens_is_left_out_where_it_decides_nothing(
    field: str, wants: dict[str, float], without: dict[str, float], server: OpenAIServer, loaded: Loaded
) -> None:
    server.rejects = {field}
    with pytest.raises(InputError, match=f"asks for {field} = {wants[field]:g}, which /v1/chat/completions does not"):
        loaded(server.url, generation=Generation.model_validate(wants), **CHAT)
    assert refused(loaded(server.url, generation=Generation.model_validate(without), **CHAT)) == {"chat": [field]}


def test_of_two_fields_that_exclude_each_other_one_stays(server: OpenAIServer, loaded: Loaded) -> None:
    server.takes = lambda body: "not both" if {"ignore_eos", "min_tokens"} <= set(body) else None
    engine = loaded(server.url, generation=Generation(max_new_tokens=6, min_new_tokens=6), **CHAT)
    assert refused(engine) == {"chat": ["min_tokens"]}


def test_all_servers_are_asked_without_what_one_refuses(
    server: OpenAIServer, other: OpenAIServer, loaded: Loaded
) -> None:
    server.rejects = {"seed"}
    assert refused(loaded(server.url, other.url, **CHAT)) == {"chat": ["seed"]}
    # One knows only the newer name of the length, the other only the older one.
    server.takes, other.rejects = newer_chat_model, {"max_completion_tokens"}
    with pytest.raises(SetupError, match=f"{other.url}: HTTP 400: Unknown fields: \\['max_completion_tokens'\\]"):
        loaded(server.url, other.url, generation=Generation(temperature=1), **CHAT)


def test_one_request_is_enough_where_nothing_is_refused(server: OpenAIServer, loaded: Loaded) -> None:
    loaded(server.url)
    assert [body["route"] for body in server.seen] == ["/v1/completions", "/v1/chat/completions"]


REASONS = {
    "model": (
        Refusal(400, '{"message": "model m not found"}'),
        "it does not serve .* and lists .*: HTTP 400: model m",
        1,
    ),
    "route": (Refusal(404, "Not Found"), "there is no /v1/chat/completions: HTTP 404: Not Found", 1),
    "key": (Refusal(401, "who are you"), "HTTP 401: who are you", 1),
    "other": (Refusal(422, "input too long"), "HTTP 422: input too long", 3),
}


@pytest.mark.parametrize("reason", REASONS)
def test_refusals_that_are_not_for_a_field_are_told_apart(reason: str, server: OpenAIServer, loaded: Loaded) -> None:
    refusal, said, requests = REASONS[reason]
    server.answer = parts(refusal)
    with pytest.raises(SetupError, match=f"The server cannot be used. {server.url}: {said}"):
        loaded(server.url, **CHAT)
    assert len(server.seen) == requests, "no field is tried where none is at fault"
