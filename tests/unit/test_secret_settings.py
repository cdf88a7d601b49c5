"""What may be secret: checked before anything is touched, one line on its way, and masked in what is reported."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.secret_settings import API_KEY, ENVIRONMENT, HEADERS, MOST_BYTES, Secrets, check_secrets, parse_secrets
from benchmark.settings import check_settings

GIVEN = {
    ENVIRONMENT: {"CUDA_VISIBLE_DEVICES": 0, "PROXY_URL": "http://me:p%40ss-word@proxy:3128", "QUOTED": 'it\'s "ü" \\'},
    API_KEY: " sk-0123456789 ",
    HEADERS: {"X-Team": "team-secret", "Authorisation": "Basic c2VjcmV0"},
}


def test_they_travel_in_one_line_of_ascii() -> None:
    secrets = check_secrets(GIVEN)
    assert secrets.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert secrets.api_key == "sk-0123456789"
    line = secrets.line()
    assert line.isascii()
    assert "\n" not in line
    assert parse_secrets(line + "\n") == secrets
    assert Secrets().line() == ""
    assert parse_secrets("\n") == Secrets()


def test_they_show_nowhere_by_themselves() -> None:
    secrets = check_secrets(GIVEN)
    shown = f"{secrets} {secrets!r}"
    assert not any(value in shown for value in secrets.values)


BAD: list[tuple[dict[str, Any], str]] = [
    ({ENVIRONMENT: "A=hidden-value"}, "benchmark_environment must be a dictionary of names and values."),
    ({ENVIRONMENT: {"A B": "hidden-value"}}, "benchmark_environment.A B is not the name of an environment variable"),
    (
        {ENVIRONMENT: {"A": ["hidden-value"]}},
        "benchmark_environment.A must be text or a number: write it in quotes.",
    ),
    ({ENVIRONMENT: {"A": True}}, "benchmark_environment.A must be text or a number: write it in quotes."),
    ({ENVIRONMENT: {"A": None}}, "benchmark_environment.A must be text or a number"),
    ({ENVIRONMENT: {"A": "hidden\nvalue"}}, "benchmark_environment.A must be one line"),
    (
        {ENVIRONMENT: {"PYTHONHOME": "/hidden-value"}},
        "benchmark_environment.PYTHONHOME would keep the run's own Python",
    ),
    ({ENVIRONMENT: {"HF_HOME": "/hidden-value"}}, "benchmark_environment.HF_HOME has no effect: set hf_cache_dir."),
    ({HEADERS: {"X Y": "hidden-value"}}, "benchmark_endpoint_headers.X Y is not the name of an HTTP header."),
    ({HEADERS: {"X": "hidden\r\nvalue"}}, "benchmark_endpoint_headers.X must be one line"),
    ({HEADERS: {"Content-Length": "5"}}, "benchmark_endpoint_headers.Content-Length is the client's own"),
    ({API_KEY: "hidden\nvalue"}, "benchmark_endpoint_api_key must be one line of ASCII text."),
    ({API_KEY: ["hidden-value"]}, "benchmark_endpoint_api_key must be one line of ASCII text."),
    ({API_KEY: "hidden-value", HEADERS: {"authorization": "hidden"}}, "serve the same purpose: set only one of them."),
    ({ENVIRONMENT: {"A": "hidden" * MOST_BYTES}}, "are longer than 32 KiB together."),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_what_is_wrong_is_said_without_the_value(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as reported:
        check_secrets(given)
    assert said in str(reported.value)
    assert "hidden" not in str(reported.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError) as reported:
        check_secrets({ENVIRONMENT: {"A B": "1", "C": True}, API_KEY: "ü", HEADERS: {"": "x"}})
    assert len(str(reported.value).splitlines()) == 4


@pytest.mark.parametrize("line", ["[]", "{", '{"benchmark_profile": "quick"}', "5"])
def test_a_line_that_is_something_else_is_refused(line: str) -> None:
    with pytest.raises(InputError):
        parse_secrets(line)


def test_they_are_masked_whole_and_in_their_parts() -> None:
    secrets = check_secrets(GIVEN)
    reported = (
        'http://me:p%40ss-word@proxy:3128, p@ss-word, sk-0123456789, Basic c2VjcmV0, c2VjcmV0, it\'s "ü" \\, device 0'
    )
    assert secrets.mask(reported) == "***, ***, ***, ***, ***, ***, device 0"
    assert secrets.mask('{"key": "it\'s \\"\\u00fc\\" \\\\"}') == '{"key": "***"}'


def test_they_are_no_settings() -> None:
    with pytest.raises(InputError, match="benchmark_environment may be secret and is not a setting"):
        check_settings({ENVIRONMENT: {"A": "hidden"}})
    with pytest.raises(InputError, match="did you mean benchmark_endpoint_api_key") as reported:
        check_settings({"benchmark_endpoint_api_keys": "hidden"})
    assert "hidden" not in str(reported.value)


@pytest.mark.parametrize(
    "query", ["key=hidden", "api-key=hidden", "apikey=hidden", "sig=hidden", "access_token=hidden"]
)
def test_a_secret_in_the_query_of_a_url_is_refused(query: str) -> None:
    with pytest.raises(InputError, match="set it as a header in benchmark_endpoint_headers") as reported:
        check_settings({"benchmark_endpoint_urls": [f"https://host/v1?api-version=1&{query}"]})
    assert "hidden" not in str(reported.value)
    check_settings({"benchmark_endpoint_urls": ["https://host/openai/v1?api-version=preview&tokenizer=x"]})
