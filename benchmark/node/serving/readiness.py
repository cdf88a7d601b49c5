"""Wait until a server that the run starts can be used: any of its routes may report that it is still loading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from pydantic_core import from_json

from benchmark.errors import SetupError
from benchmark.node.serving.client import ALONE, Client, HttpError, Request, Target
from benchmark.node.serving.failures import Broken, NotConnected
from benchmark.node.serving.process import ServerProcess
from benchmark.node.serving.reply import ReplyError
from benchmark.node.serving.request import OPTIONAL, PROBE, PROBE_TOKENS, ROUTES, Api, body
from benchmark.profiles import Generation
from benchmark.settings import Settings

POLL_S = 0.25
# Statuses of servers that are loading, and of proxies before them.
LOADING = (425, 429, 502, 503, 504)


def wait_until_ready(client: Client, server: ServerProcess, settings: Settings, generation: Generation) -> None:
    """Return once every server can be used: its health route answers 200, it lists its models, and it answers a query.

    A server that is still loading may report that at any of the three. Raises SetupError, with the log's last words, if
    the process ends before or benchmark_endpoint_start_timeout_s has passed.
    """
    timeout_s = settings.benchmark_endpoint_start_timeout_s
    until = time.monotonic() + timeout_s
    waiting = list(client.targets)
    while waiting:
        if ended := server.ended():
            raise SetupError(ended)
        asked = _not_yet(client, waiting[0], settings, generation)
        if missing := client.call(_within(until - time.monotonic(), asked)):
            if time.monotonic() > until:
                raise SetupError(
                    f"The server was not ready within benchmark_endpoint_start_timeout_s = {timeout_s:g} s: "
                    f"{waiting[0].url}{missing} {server.last_words()}"
                )
            time.sleep(POLL_S)
        else:
            waiting.pop(0)


async def _not_yet(client: Client, target: Target, settings: Settings, generation: Generation) -> str:
    """Return the route that shows that a server is not ready, and its answer; nothing if the server is ready."""
    route = settings.benchmark_endpoint_health
    try:
        await client.get(target, route)
        route, named = "/v1/models", settings.benchmark_endpoint_model
        listed = await _listed(client, target, named)
        if not listed and not named:
            return f"{route} lists no models."
        wanted = settings.benchmark_model
        model = named or (wanted if wanted in listed else listed[0])
        api: Api = "completions" if settings.benchmark_endpoint_api == "completions" else "chat"
        route = ROUTES[api]
        request = Request(route, body(api, model, PROBE, generation, OPTIONAL, PROBE_TOKENS))
        await client.ask(target, request, lambda at_ns, token_id: None, lambda reply: None, ALONE)
    except HttpError as error:
        # Other errors of a query or a key do not change with time: `discover` will report them.
        if error.status in LOADING or (route not in ROUTES.values() and error.status not in (401, 403)):
            return f"{route}: {error}"
    except (NotConnected, Broken) as error:
        return f"{route}: {error}"
    except ReplyError as error:
        if route not in ROUTES.values():
            return f"{route}: {error}"
    return ""


async def _within(seconds: float, asked: Coroutine[Any, Any, str]) -> str:
    try:
        return await asyncio.wait_for(asked, max(1.0, seconds))
    except asyncio.TimeoutError:
        return " gave no answer to a query."


async def _listed(client: Client, target: Target, named: str) -> list[str]:
    """Return the models that a server lists; none if it has no list and the user has `named` the model."""
    try:
        return [str(model["id"]) for model in from_json(await client.get(target, "/v1/models"))["data"]]
    except HttpError as error:
        if named and error.status not in LOADING:
            return []
        raise
    except (ValueError, KeyError, TypeError):
        return []
