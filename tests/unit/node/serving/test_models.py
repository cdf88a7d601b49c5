"""Which of a server's models is measured, by what servers list and by what answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from benchmark.errors import SetupError
from benchmark.node.interfaces import Prompt, Query
from benchmark.node.serving.models import Listed, matching
from benchmark.served import same_model
from tests import openai_server
from tests.openai_server import DONE, OpenAIServer, event
from tests.unit.node.endpoint.asked import Loaded
from tests.unit.node.heard import Heard
from tests.unit.node.serving.conftest import LLAMA

SNAPSHOT = (
    "/cache/hub/models--meta-llama--Llama-3.1-8B-Instruct/snapshots/" + "0e9e39f249a16976918f6564b8830bc894c89659"
)
SAME = [
    ("/models/Llama-3.1-8B-Instruct", LLAMA),
    ("/models/meta-llama/Llama-3.1-8B-Instruct/", LLAMA),
    ("Llama-3.1-8B-Instruct", LLAMA),
    (SNAPSHOT, LLAMA),
    ("tiny-llama", "/demo/tiny-llama"),
    ("/a/tiny-llama", "/b/tiny-llama"),
]
NOT_SAME = [
    ("embed-small", LLAMA),
    ("llama", LLAMA),
    ("other/Llama-3.1-8B-Instruct", LLAMA),
    ("meta-llama/Llama-3.1-8B-Instruct-FP8", LLAMA),
    ("/models/Llama-3.1-8B-Instruct-Q4_K_M.gguf", LLAMA),
    (SNAPSHOT.replace("meta-llama", "someone"), LLAMA),
    ("", LLAMA),
]


@pytest.mark.parametrize(("one", "model"), SAME)
def test_names_that_can_only_mean_one_model(one: str, model: str) -> None:
    assert same_model(one, model)
    assert same_model(model, one)


@pytest.mark.parametrize(("one", "model"), NOT_SAME)
def test_names_of_other_models(one: str, model: str) -> None:
    assert not same_model(one, model)
    assert not same_model(model, one)


def test_the_very_id_comes_before_what_has_it_as_its_root() -> None:
    listed = [Listed("chat", root=LLAMA), Listed(LLAMA, root="/other")]
    assert [one.id for one in matching(listed, LLAMA)] == [LLAMA]
    assert [one.id for one in matching(listed[:1], LLAMA)] == ["chat"]


def test_names_of_one_root_are_one_model_and_two_roots_are_two() -> None:
    assert [one.id for one in matching([Listed("a", LLAMA), Listed("b", LLAMA)], LLAMA)] == ["a"]
    two = [Listed("/x/Llama-3.1-8B-Instruct"), Listed("/y/Llama-3.1-8B-Instruct")]
    assert len(matching(two, LLAMA)) == 2


def test_the_model_of_the_settings_is_taken_from_the_list(server: OpenAIServer, loaded: Loaded) -> None:
    server.models = ("embed-small", LLAMA)
    assert loaded(server.url).info.details["model"] == LLAMA
    assert {body["model"] for body in server.seen} == {LLAMA}


def test_a_name_for_its_root_is_taken(server: OpenAIServer, loaded: Loaded) -> None:
    server.entries = [{"id": "embed"}, {"id": "chat", "root": SNAPSHOT, "max_model_len": 4096}]
    details = loaded(server.url).info.details
    assert details["model"] == "chat"
    assert details["reported"] == {"root": SNAPSHOT, "max_model_len": "4096", "revision": SNAPSHOT.split("/")[-1]}


@pytest.mark.parametrize("models", [("embed-small", "llama"), ("llama",)])
def test_what_is_not_listed_is_not_measured(models: tuple[str, ...], server: OpenAIServer, loaded: Loaded) -> None:
    server.models = models
    with pytest.raises(SetupError) as refused:
        loaded(server.url)
    assert str(refused.value) == (
        f"{server.url} lists {', '.join(models)}; {LLAMA} (benchmark_model) is not among them: set "
        "benchmark_endpoint_model to the name of the model to measure."
    )
    assert not server.seen, "nothing was asked of another model"
    assert loaded(server.url, benchmark_endpoint_model="llama").info.details["model"] == "llama"


def test_one_of_several_servers_that_lists_others_is_named(
    server: OpenAIServer, other: OpenAIServer, loaded: Loaded
) -> None:
    other.models = ("embed-small",)
    with pytest.raises(SetupError, match=f"^{other.url} lists embed-small; "):
        loaded(server.url, other.url)
    other.models = ("/models/Llama-3.1-8B-Instruct",)
    with pytest.raises(SetupError, match=f"different names .*{other.url} calls it /models/Llama-3.1-8B-Instruct"):
        loaded(server.url, other.url)
    other.models, other.unknown_models = ("embed-small",), {LLAMA}
    with pytest.raises(
        SetupError, match=f"{other.url}: it does not serve {LLAMA} and lists embed-small: HTTP 404: The"
    ):
        loaded(server.url, other.url, benchmark_endpoint_model=LLAMA)


def test_a_name_that_no_list_has_is_asked_for_and_recorded(server: OpenAIServer, loaded: Loaded) -> None:
    details = loaded(server.url, benchmark_endpoint_model="adapter").info.details
    assert (details["model"], details["models"], details["not_listed_by"]) == ("adapter", [LLAMA], [server.url])
    server.unknown_models = {"adapter"}
    with pytest.raises(SetupError, match=f"it does not serve adapter and lists {LLAMA}: HTTP 404: The model `adapter`"):
        loaded(server.url, benchmark_endpoint_model="adapter")


@pytest.mark.parametrize("listed", ["text", [], {"id": LLAMA}, [{"name": LLAMA}], [LLAMA]])
def test_a_list_of_another_shape_names_no_model(listed: Any, server: OpenAIServer, loaded: Loaded) -> None:
    server.entries = listed
    with pytest.raises(SetupError, match=r"does not answer like an OpenAI-compatible server|lists no models"):
        loaded(server.url)
    assert loaded(server.url, benchmark_endpoint_model=LLAMA).info.details["model"] == LLAMA


def as_model(name: str) -> openai_server.Answer:
    """Return an answer as of the model of that name."""

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield event({"model": name, "choices": [{"index": 0, "text": "a", "delta": {"content": "a"}}]})
        yield event({"model": name, "choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": "length"}]})
        yield event({"model": name, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        yield DONE

    return answer


@pytest.mark.parametrize("name", ["fallback-3b", f"{LLAMA}-FP8", "meta-llama/Llama-3.2-1B"])
def test_a_server_that_answers_with_another_model_is_refused(name: str, server: OpenAIServer, loaded: Loaded) -> None:
    server.answer = as_model(name)
    with pytest.raises(SetupError, match=f"was asked for {LLAMA} but answers as {name}, which is another model"):
        loaded(server.url)


@pytest.mark.parametrize("name", [f"{LLAMA}-2024-08-06", f"{LLAMA}@main", "/models/Llama-3.1-8B-Instruct"])
def test_another_name_of_the_same_model_is_recorded(name: str, server: OpenAIServer, loaded: Loaded) -> None:
    server.answer = as_model(name)
    assert loaded(server.url).info.details["answered_by"] == name


def test_a_router_that_falls_back_fails_the_query(server: OpenAIServer, loaded: Loaded) -> None:
    server.answer = as_model(LLAMA)
    engine = loaded(server.url)
    heard = Heard()
    for index, name in enumerate((LLAMA, "fallback-3b", LLAMA)):
        server.answer = as_model(name)
        engine.submit(Query(index=index, prompt=Prompt(id="p", text="Hello"), seed=1), heard)
        heard.wait(index + 1)
    assert heard.errors == {1: f"fallback-3b answered, but {LLAMA} was asked for: that is another model."}


def test_the_users_word_for_a_model_counts(server: OpenAIServer, loaded: Loaded) -> None:
    server.models, server.answer = ("mine", "small"), as_model("base")
    assert loaded(server.url, benchmark_endpoint_model="mine").info.details["answered_by"] == "base"
    server.answer = as_model("small")
    with pytest.raises(SetupError, match="was asked for mine but answers as small"):
        loaded(server.url, benchmark_endpoint_model="mine")
    server.entries = [{"id": "mine", "root": "/m"}, {"id": "small", "root": "/m"}]
    assert loaded(server.url, benchmark_endpoint_model="mine").info.details["answered_by"] == "small"
