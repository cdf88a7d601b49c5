"""What a server is and which fields it takes: found out once, before anything is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import from_json

from benchmark.errors import InputError, SetupError
from benchmark.node.serving.client import ALONE, Client, HttpError, Request, Target, Unreachable
from benchmark.node.serving.reply import Reply, ReplyError
from benchmark.node.serving.request import OPTIONAL, PROBE, PROBE_TOKENS, ROUTES, Api, body
from benchmark.profiles import Generation
from benchmark.settings import Settings


@dataclass
class Found:
    """How to ask the servers, and what to say of them in the result."""

    model: str
    refused: dict[Api, set[str]] = field(default_factory=dict)
    """Fields that a server does not take, which are left out for all of them."""
    unusable: dict[Api, str] = field(default_factory=dict)
    """Why a route cannot be used, a sentence."""
    details: dict[str, JsonValue] = field(default_factory=dict)


def refuse_strangers(client: Client) -> None:
    """Raise SetupError where something answers already at the address of a server that is yet to be started."""
    for target in client.targets:
        try:
            client.call(client.get(target, "/"))
        except Unreachable:
            continue
        except ReplyError:
            pass
        raise SetupError(
            f"Something answers at {target.url} before benchmark_endpoint_start was run: end it, choose another port, "
            "or leave benchmark_endpoint_start empty to measure what runs there."
        )


def discover(client: Client, settings: Settings, generation: Generation) -> Found:
    """Ask the servers for their models, their version, and with tiny requests for the fields that they take.

    Raises SetupError where one does not answer, does not know the model or has no route that can be used; InputError
    where it does not take a field that the profile needs.
    """
    return client.call(_discover(client, settings, generation))


async def _discover(client: Client, settings: Settings, generation: Generation) -> Found:
    first = client.targets[0]
    models = await _models(client, settings)
    found = Found(settings.benchmark_endpoint_model or _choice(models, settings.benchmark_model, first))
    asked = settings.benchmark_endpoint_api
    counting: dict[str, JsonValue] = {}
    for api in ROUTES if asked == "auto" else (asked,):
        probes = [_Probe(client, target, api, found.model, generation) for target in client.targets]
        await asyncio.gather(*(probe.run() for probe in probes))
        if reasons := [f"{probe.target.url}: {probe.reason}" for probe in probes if probe.reason]:
            found.unusable[api] = reasons[0]
            continue
        found.refused[api] = set().union(*(probe.refused for probe in probes))
        counting[api] = ", ".join(sorted({probe.counting for probe in probes}))
        if "top_k" in found.refused[api] and generation.top_k and generation.temperature:
            raise InputError(f"The profile asks for top_k = {generation.top_k}, which {ROUTES[api]} does not take.")
    if not found.refused:
        raise SetupError(f"The server cannot be used. {' '.join(found.unusable.values())}")
    found.details = {
        "model": found.model,
        "models": [*models],
        "server": first.software,
        "version": await _version(client, first),
        "counting": counting,
        "refused_fields": {api: [*sorted(names)] for api, names in found.refused.items()},
        "unusable": {str(api): reason for api, reason in found.unusable.items()},
    }
    return found


async def _models(client: Client, settings: Settings) -> list[str]:
    """Return the ids that the first server lists.

    A server need not list any: `transformers serve` lists the Hugging Face cache, and answers 500 where there is none.
    """
    target = client.targets[0]
    try:
        listed = from_json(await client.get(target, "/v1/models"))["data"]
        return [str(model["id"]) for model in listed]
    except HttpError as error:
        if settings.benchmark_endpoint_model:
            return []  # whether it has that model, the probes tell
        hint = " Set OPENAI_API_KEY in the environment of the run." if error.status in (401, 403) else ""
        raise SetupError(f"{target.url}/v1/models: {error}{hint}") from None
    except ReplyError as error:
        raise SetupError(str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise SetupError(f"{target.url}/v1/models does not answer as an OpenAI-compatible server does.") from None


def _choice(models: list[str], wanted: str, target: Target) -> str:
    if not models:
        raise SetupError(f"{target.url} lists no model: set benchmark_endpoint_model to the one that it serves.")
    return wanted if wanted in models else models[0]


async def _version(client: Client, target: Target) -> str | None:
    """Return what vLLM's route /version says; None for a server that has no such route."""
    try:
        return str(from_json(await client.get(target, "/version"))["version"])[:200]
    except (ReplyError, ValueError, KeyError, TypeError):
        return None


class _Probe:
    """Finds out which fields a server's route takes: with all of them, and where that is refused, one by one."""

    def __init__(self, client: Client, target: Target, api: Api, model: str, generation: Generation) -> None:
        self.target = target
        self.refused: set[str] = set()
        self.reason = ""
        """Why the route cannot be used."""
        self.counting = ""
        self._client = client
        self._api: Api = api
        self._model = model
        self._generation = generation

    async def run(self) -> None:
        try:
            if not await self._takes(()):
                optional = {name for name in OPTIONAL if name in self._body(())}
                await self._ask(optional)
                self.refused = {name for name in optional if not await self._takes(optional - {name})}
                await self._ask(self.refused)
        except ReplyError as error:
            self.reason = str(error)

    async def _takes(self, without: Collection[str]) -> bool:
        try:
            await self._ask(without)
        except HttpError as error:
            if error.status in (400, 422):
                return False
            raise
        return True

    async def _ask(self, without: Collection[str]) -> None:
        replies: list[Reply] = []
        request = Request(ROUTES[self._api], self._body(without))
        await self._client.ask(self.target, request, lambda at_ns: None, replies.append, ALONE)
        self.counting = replies[0].counting

    def _body(self, without: Collection[str]) -> dict[str, JsonValue]:
        return body(self._api, self._model, PROBE, self._generation, without, PROBE_TOKENS)
