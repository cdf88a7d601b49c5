"""Any OpenAI-compatible server as the system under test: vLLM, SGLang, TensorRT-LLM, llama.cpp, `transformers serve`.

It is already running (`benchmark_endpoint_urls`), or the run starts it and ends it (`benchmark_endpoint_start`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import aiohttp
from pydantic import JsonValue

from benchmark.errors import InputError, SetupError
from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, EngineBroken, Listener, Query
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.prompting import encode, require_template
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.node.options import check_none
from benchmark.node.serving import discovery
from benchmark.node.serving.cache_counters import PrefixCacheCount, Tally
from benchmark.node.serving.client import Client, Request
from benchmark.node.serving.process import SERVER, ServerProcess
from benchmark.node.serving.readiness import wait_until_ready
from benchmark.node.serving.request import ROUTES, Api, api_for, body
from benchmark.node.serving.slots import raise_handle_limit
from benchmark.node.watch.environment import visible_gpus
from benchmark.profiles import Generation
from benchmark.records import EngineInfo, Serving
from benchmark.secret_settings import Secrets
from benchmark.served import same_model

DEFAULT_URL = "http://127.0.0.1:8000"


class Counting(Protocol):
    """A counter of something during a measurement."""

    def begin_window(self) -> None:
        """Reset the counts."""

    def end_window(self) -> Mapping[str, Any]:
        """Return the counts since then, as fields of `Serving`. Never raises."""


class Engine(interfaces.Engine):
    """The client of one or several servers. Their own queues are part of the measurement; the client has none."""

    counts_gpus = True
    has_server = True
    name = "endpoint"
    called = SERVER
    """The subject of sentences about a server that the run started."""
    _server: ServerProcess | None = None
    _client: Client | None = None
    _tokenizer: Any = None
    _secrets = Secrets()
    _cache: PrefixCacheCount
    _counted: list[Counting]
    """The counters that contribute to `end_window`."""

    def load(self) -> EngineInfo:
        """Start the server if `benchmark_endpoint_start` is set, and find out what it is and which fields it accepts.

        Raises InputError if there is no URL and no command or the server cannot do what the run needs, SetupError if
        it does not start, does not answer or does not know the model.
        """
        self._check_options()
        settings = self.settings
        urls = settings.benchmark_endpoint_urls
        if not urls and not settings.benchmark_endpoint_start:
            raise InputError(
                "The engine is endpoint, but no server is set: set benchmark_endpoint_urls to running servers, or "
                "benchmark_endpoint_start to a command that starts one."
            )
        if settings.benchmark_endpoint_api == "completions":
            snapshot = find_snapshot(settings)
            self._tokenizer = load_tokenizer(snapshot)
            if self.demands.needs_template:
                require_template(self._tokenizer, snapshot)
        raise_handle_limit()
        self._secrets = _with_key(self.secrets)
        self._client = Client(
            urls or [DEFAULT_URL],
            self._secrets,
            settings.benchmark_endpoint_query_timeout_s,
            lambda: self._server.ended() if self._server else None,
            settings.benchmark_endpoint_ca_file,
        )
        self._cache = PrefixCacheCount(self._client)
        self._counted = [self._client, self._cache]
        started = {"start": settings.benchmark_endpoint_start} if settings.benchmark_endpoint_start else {}
        if started:
            discovery.refuse_foreign_server(self._client)
            self._server = ServerProcess(
                settings.benchmark_endpoint_start, self.directory, name=self.called, secret=self._secrets.values
            )
            wait_until_ready(self._client, self._server, settings, self._hardest)
        try:
            self._found = discovery.discover(self._client, settings, self._hardest)
        except SetupError as error:
            if self._server is None:
                raise
            # A server whose engine has died only refers to its log for the cause.
            raise SetupError(f"{error} {self._server.last_words()}") from None
        self._found.require(settings.benchmark_endpoint_api, self.demands)
        return EngineInfo(
            name=self.name,
            replicas=self._replicas(),
            details={
                "urls": [target.url for target in self._client.targets],
                "api": settings.benchmark_endpoint_api,
                "client": f"aiohttp {aiohttp.__version__}",
                **self._shown(),
                **started,
                **self._found.details,
                **self._details(),
            },
        )

    def submit(self, query: Query, listener: Listener) -> None:
        """Hand the query to the client's thread and return; raises EngineBroken once no server answers any more."""
        if self._client is None:
            raise RuntimeError("The engine is not loaded.")
        api = self._api(query)
        if reason := self._found.refusal(api, query.greedy):
            listener.failed(query, reason)
            return
        try:
            self._client.submit(query, _Counted(listener, self._cache.tally, self._found), self._request(api, query))
        except EngineBroken as error:
            raise EngineBroken(self._why(str(error))) from None

    def server_of(self, query: Query) -> int | None:
        """Return the index of the server that got the query."""
        return self._client.server_of(query) if self._client else None

    def check(self) -> None:
        """Raise EngineBroken if no server can answer any more."""
        if self._client is None:
            return
        # The client checks four times a second.
        if broken := self._client.broken or (self._server and self._server.ended()):
            raise EngineBroken(self._why(broken))

    def begin_window(self) -> None:
        """Reset all counters."""
        for one in self._counted:
            one.begin_window()

    def end_window(self) -> Serving | None:
        """Return the counts since then."""
        return Serving(**{name: value for one in self._counted for name, value in one.end_window().items()})

    def close(self) -> None:
        """Close the connections and stop the server that the run started."""
        try:
            if self._client is not None:
                self._client.close()
        finally:
            self._client = None
            if self._server is not None:
                self._server.stop()

    def _why(self, broken: str) -> str:
        """Return why no server answers: how the server ended, if the run started it, else `broken`."""
        # A server refuses connections before the last of its processes has ended.
        return (self._server.end() if self._server else None) or broken

    def _check_options(self) -> None:
        check_none(self.options, "The endpoint engine")

    def _details(self) -> dict[str, JsonValue]:
        """Return further details for the result."""
        return {}

    def _shown(self) -> dict[str, JsonValue]:
        """Return the names of the secrets sent to the servers, and of proxy variables; values are never recorded."""
        targets = self._client.targets if self._client else []
        names: dict[str, JsonValue] = {
            "api_key": bool(self._secrets.api_key),
            "headers": [*self._secrets.headers],
            "proxies": [*sorted({target.address.through for target in targets if target.address.proxy})],
        }
        return {name: value for name, value in names.items() if value}

    @property
    def _hardest(self) -> Generation:
        """The generation to probe servers with: answers of an exact length, if any prompt asks for that."""
        most = self.generation.max_new_tokens
        return self.generation.model_copy(update={"min_new_tokens": most}) if self.demands.lengths else self.generation

    def _request(self, api: Api, query: Query) -> Request:
        if api == "completions" and query.prompt.token_ids is None:
            ids = tuple(encode(self._tokenizer, query.prompt))
            query = replace(query, prompt=replace(query.prompt, token_ids=ids))
        own = len(query.prompt.token_ids or ()) if api == "completions" else None
        fields = body(api, self._found.model, query, self.generation, self._found.refused[api])
        return Request(ROUTES[api], fields, own)

    def _api(self, query: Query) -> Api:
        return api_for(self.settings.benchmark_endpoint_api, query.prompt.token_ids is not None)

    def _replicas(self) -> int:
        if isinstance(self.settings.benchmark_replicas, int):
            return self.settings.benchmark_replicas
        if self.settings.benchmark_device == "cuda":
            return max(1, len(visible_gpus()[0]))
        return max(1, len(self.settings.benchmark_endpoint_urls))


class _Counted:
    """A query's listener that counts cached tokens and fails answers of another model, before passing them on."""

    def __init__(self, listener: Listener, tally: Tally, found: discovery.Found) -> None:
        self._listener = listener
        self._tally = tally
        self._found = found
        self.first_token = listener.first_token
        self.failed = listener.failed

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        self._tally.add(answer)
        if answer.model and answer.model not in self._found.names and not same_model(answer.model, self._found.model):
            reason = f"{answer.model[:200]} answered, but {self._found.model} was asked for: that is another model."
            self._listener.failed(query, reason)
            return
        self._listener.completed(query, at_ns, answer)


def _with_key(secrets: Secrets) -> Secrets:
    """Return the secrets, with OPENAI_API_KEY from the run's environment if no key was given."""
    own = os.environ.get("OPENAI_API_KEY", "").strip()
    has_one = secrets.api_key or any(name.lower() == "authorization" for name in secrets.headers)
    return secrets if has_one or not own else replace(secrets, api_key=own)
