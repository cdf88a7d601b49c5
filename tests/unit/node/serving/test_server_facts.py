"""What servers report of themselves, each in its own way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.openai_server import OpenAIServer
from tests.unit.node.endpoint.asked import Loaded
from tests.unit.node.serving.conftest import LLAMA

KINDS: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "sglang": (
        {"/get_server_info": {"version": "0.5.6", "dtype": "auto", "quantization": "fp8", "api_key": "sk-1", "x": [1]}},
        "0.5.6",
        {"quantization": "fp8"},
    ),
    "tgi": (
        {"/info": {"version": "3.3.4", "model_id": LLAMA, "model_sha": "abc", "model_dtype": "torch.float16"}},
        "3.3.4",
        {"dtype": "float16", "revision": "abc", "root": LLAMA},
    ),
    "ollama": ({"/api/version": {"version": "0.12.9"}}, "0.12.9", {}),
    "llama.cpp": (
        {"/props": {"build_info": "b6123-abc", "model_path": "/m/llama-Q4_K_M.gguf"}},
        "b6123-abc",
        {"root": "/m/llama-Q4_K_M.gguf"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_server_is_asked_in_its_own_way(kind: str, server: OpenAIServer, loaded: Loaded) -> None:
    server.pages, version, reported = KINDS[kind]
    server.version = ""
    details = loaded(server.url).info.details
    assert (details["version"], details["reported"]) == (version, reported)
    assert "sk-1" not in str(details)


@pytest.mark.parametrize("odd", ["not JSON", [1], {"version": {"a": 1}, "dtype": None, "model_sha": True}, "null"])
def test_an_answer_of_any_shape_is_put_up_with(odd: Any, server: OpenAIServer, loaded: Loaded) -> None:
    server.version = ""
    server.pages = dict.fromkeys(("/get_server_info", "/server_info", "/info", "/props"), odd)
    details = loaded(server.url).info.details
    assert (details["version"], details["reported"]) == (None, {})


def test_servers_that_differ_are_both_in_the_result(server: OpenAIServer, other: OpenAIServer, loaded: Loaded) -> None:
    server.pages = {"/info": {"model_dtype": "bfloat16", "model_sha": "abc"}}
    other.pages = {"/info": {"model_dtype": "float16"}}
    other.version = "2.0"
    details = loaded(server.url, other.url).info.details
    assert details["version"] == "1.2.3, 2.0"
    assert details["reported"] == {"dtype": "bfloat16, float16", "revision": "abc, not reported by the server"}
