"""Values from a user that may be secret: they reach the run on the node, but no record, file or output.

They are not settings, which are stored in every result. They are sent on standard input, in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from benchmark.errors import InputError

ENVIRONMENT, API_KEY, HEADERS = "benchmark_environment", "benchmark_endpoint_api_key", "benchmark_endpoint_headers"
NAMES = (ENVIRONMENT, API_KEY, HEADERS)

MASK = "***"
# Shorter values ("0", "INFO") are not hidden: they occur in every text, and are no secrets.
LEAST_MASKED = 6
# One line that fits a pipe's buffer, so that writing it never blocks.
MOST_BYTES = 32_768

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, a token
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_-]* +(\S.*)")
# Variables without effect in a run with an order, and the settings to use instead.
_SET_ELSEWHERE = {
    "HF_HOME": "hf_cache_dir",
    "SERVER_TARGET_QPS": "benchmark_target_qps",
    "NODE_NAME": "the host's name in the inventory",
}
# Not hidden: their values (hosts, GPUs) are in other messages anyway.
_PLAIN = ("NO_PROXY", "no_proxy", "CUDA_VISIBLE_DEVICES")
# Headers that the client itself sets.
_CLIENTS_OWN = ("accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding")


@dataclass(frozen=True, repr=False)
class Secrets:
    """Environment variables of the run and of its server, and the client's API key and headers."""

    environment: Mapping[str, str] = field(default_factory=dict)
    api_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return the secrets as one line of ASCII, empty if there are none."""
        given = dict(zip(NAMES, (dict(self.environment), self.api_key, dict(self.headers)), strict=True))
        there = {name: value for name, value in given.items() if value}
        return json.dumps(there) if there else ""

    def mask(self, text: str) -> str:
        """Return the text without any of the values."""
        for value in self.values:
            text = text.replace(value, MASK)
        return text

    def mask_key(self, text: str) -> str:
        """Return the text without the key, for text that is parsed later: other values may be a model's name."""
        return text.replace(self.api_key, MASK) if self.api_key else text

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Values that no output may contain, longest first: one may be part of another."""
        variables = [value for name, value in self.environment.items() if name not in _PLAIN]
        given = {*variables, *self.headers.values(), self.api_key}
        parts = {found[1] for value in self.headers.values() if (found := _SCHEME.fullmatch(value))}
        for value in variables:
            parts |= _passwords(value)
        masked = {form for value in given | parts if len(value) >= LEAST_MASKED for form in _forms(value)}
        return tuple(sorted(masked, key=lambda value: (-len(value), value)))


def parse_secrets(line: str) -> Secrets:
    """Parse the line of `Secrets.line`. Raises InputError if it is something else, without its content."""
    try:
        given = json.loads(line) if line.strip() else {}
        return check_secrets(given) if isinstance(given, dict) else _refuse()
    except ValueError:
        return _refuse()


def check_secrets(variables: Mapping[str, Any]) -> Secrets:
    """Return the secrets among a node's variables. Raises InputError with every problem, but without values."""
    problems: list[str] = []
    environment = _texts(ENVIRONMENT, variables.get(ENVIRONMENT), _environment_problem, problems)
    headers = check_headers(HEADERS, variables.get(HEADERS), problems)
    key = variables.get(API_KEY)
    api_key = "" if key is None else str(key).strip()
    if isinstance(key, bool | dict | list | tuple) or _CONTROL.search(api_key) or not api_key.isascii():
        problems.append(f"{API_KEY} must be one line of ASCII text.")
    if api_key and any(name.lower() == "authorization" for name in headers):
        problems.append(
            f"{API_KEY} and the header Authorization of {HEADERS} serve the same purpose: set only one of them."
        )
    if unknown := set(variables) - set(NAMES):
        problems.append(f"{', '.join(sorted(unknown))}: only {', '.join(NAMES)} are read here.")
    found = Secrets(environment, api_key, headers)
    if not problems and len(found.line()) > MOST_BYTES:
        problems.append(f"{', '.join(NAMES)} are longer than {MOST_BYTES >> 10} KiB together.")
    if problems:
        raise InputError("\n".join(problems))
    return found


def check_headers(setting: str, given: Any, problems: list[str]) -> dict[str, str]:
    """Return the headers of an HTTP request; add a sentence, without the value, to `problems` for each invalid one."""
    return _texts(setting, given, _header_problem, problems)


def _refuse() -> Secrets:
    raise InputError(f"The secrets must be one line of JSON, an object with any of {', '.join(NAMES)}.")


def _texts(setting: str, given: Any, problem: Callable[[str, str], str], problems: list[str]) -> dict[str, str]:
    """Return a dictionary of texts; add a sentence to `problems` for each invalid entry."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"{setting} must be a dictionary of names and values.")
        return {}
    texts: dict[str, str] = {}
    for key, value in given.items():
        name, text = str(key), str(value)
        if value is None or isinstance(value, bool | Mapping | list | tuple):
            problems.append(f"{setting}.{name} must be text or a number: write it in quotes.")
        elif _CONTROL.search(text):
            problems.append(f"{setting}.{name} must be one line without control characters.")
        elif reported := problem(name, text):
            problems.append(f"{setting}.{name} {reported}.")
        else:
            texts[name] = text
    return texts


def _environment_problem(name: str, value: str) -> str:
    if not _VARIABLE.fullmatch(name):
        return "is not the name of an environment variable, which has only letters, digits and _"
    if name == "PYTHONHOME":
        return "would keep the run's own Python from starting: leave it out, and set python_env_dir"
    return f"has no effect: set {_SET_ELSEWHERE[name]}" if name in _SET_ELSEWHERE else ""


def _header_problem(name: str, value: str) -> str:
    if not _HEADER.fullmatch(name):
        return "is not the name of an HTTP header"
    return "is the client's own and cannot be set" if name.lower() in _CLIENTS_OWN else ""


def _passwords(value: str) -> set[str]:
    """Return the password in a URL (a proxy's), as written and decoded."""
    try:
        password = urlsplit(value).password if "://" in value else urlsplit(f"//{value}").password
    except ValueError:
        return set()
    return {password, unquote(password)} if password else set()


def _forms(value: str) -> set[str]:
    """Return a value, and its forms in JSON and in Python's quotes."""
    return {value, json.dumps(value)[1:-1], repr(value)[1:-1]}
