"""What a server is and which fields it accepts: found out once, before the measurement."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from benchmark.errors import InputError, SetupError
from benchmark.node.interfaces import Demands
from benchmark.node.serving.client import Client, Unreachable
from benchmark.node.serving.models import choose, list_models
from benchmark.node.serving.probe import Probe
from benchmark.node.serving.reply import ReplyError
from benchmark.node.serving.request import ROUTES, Api, api_for, undroppable
from benchmark.node.serving.server_facts import ask, together
from benchmark.profiles import Generation
from benchmark.served import same_model
from benchmark.settings import Settings

MOST_WORDS = 2000
# What a server may append to the requested name: a date, a revision, a tag.
VERSION = re.compile(r"-\d[\d.-]*|[@:][\w./-]+")


@dataclass
class Found:
    """How to send requests to the servers, and the details of them for the result."""

    model: str
    names: set[str] = field(default_factory=set)
    """Names that answers may carry: any other name is another model."""
    refused: dict[Api, set[str]] = field(default_factory=dict)
    """Fields that some server does not accept: they are left out for all servers."""
    unusable: dict[Api, str] = field(default_factory=dict)
    """Why a route cannot be used, as a sentence."""
    without_ids: dict[Api, str] = field(default_factory=dict)
    """Routes whose answers have no token ids -> the URL of a server that sends none."""
    details: dict[str, JsonValue] = field(default_factory=dict)

    def refusal(self, api: Api, greedy: bool) -> str | None:
        """Return why a route cannot answer a query, as a sentence; None: it can. `greedy`: without sampling."""
        if reason := self.unusable.get(api):
            return f"{ROUTES[api]} cannot be used: {reason}"
        if greedy and "temperature" in self.refused[api]:
            return f"{ROUTES[api]} accepts no temperature, so it cannot be asked to answer without sampling."
        return None

    def require(self, asked: Literal["auto", "completions", "chat"], demands: Demands) -> None:
        """Raise InputError if the servers cannot meet a run's demands; `asked` is `benchmark_endpoint_api`."""
        kinds = [has_ids for has_ids, come in ((False, demands.texts), (True, demands.ids)) if come]
        for api in dict.fromkeys(api_for(asked, has_ids) for has_ids in kinds):
            if reason := self.refusal(api, demands.greedy):
                raise InputError(f"The profile cannot be run on this server: {reason}")
            if demands.token_ids and api in self.without_ids:
                raise InputError(
                    f"{self.without_ids[api]} reports no token ids, but answers are compared by their ids, or are part "
                    "of a later prompt: use a server that returns them; or set benchmark_accuracy to off, leave "
                    "benchmark_audit empty, and use no conversations."
                )


def refuse_foreign_server(client: Client) -> None:
    """Raise SetupError if something already answers at the address of a server that is about to be started."""
    for target in client.targets:
        try:
            client.call(client.get(target, "/"))
        except Unreachable:
            continue
        except ReplyError:
            pass
        raise SetupError(
            f"Something already answers at {target.url} before benchmark_endpoint_start has run: end it, choose "
            "another port, or leave benchmark_endpoint_start empty to measure what runs there."
        )


def discover(client: Client, settings: Settings, generation: Generation) -> Found:
    """Ask the servers for their models and versions, and find out with tiny requests which fields they accept.

    Raises SetupError if one does not answer, does not serve the model or has no usable route; InputError if it does
    not accept a field that the profile needs.
    """
    return client.call(_discover(client, settings, generation))


async def _discover(client: Client, settings: Settings, generation: Generation) -> Found:
    by_user = bool(settings.benchmark_endpoint_model)
    listings = await asyncio.gather(*(list_models(client, target, settings) for target in client.targets))
    found = Found(choose(listings, settings))
    counting: dict[str, JsonValue] = {}
    answered: set[str] = set()
    asked = settings.benchmark_endpoint_api
    for api in ROUTES if asked == "auto" else (asked,):
        probes = [Probe(client, listing, api, found.model, generation) for listing in listings]
        await asyncio.gather(*(probe.run() for probe in probes))
        refused = set().union(*(probe.refused for probe in probes))
        # What one server refuses is left out for all, so the others must accept requests without it.
        await asyncio.gather(*(probe.confirm(refused) for probe in probes))
        if reasons := [f"{probe.listing.target.url}: {probe.reason}" for probe in probes if probe.reason]:
            found.unusable[api] = " ".join(reasons)[:MOST_WORDS]
            continue
        _refuse_what_is_needed(api, refused, probes, generation)
        found.refused[api] = refused
        if silent := [probe.listing.target.url for probe in probes if not probe.has_ids]:
            found.without_ids[api] = silent[0]
        counting[api] = ", ".join(sorted({probe.counting for probe in probes}))
        found.names |= {found.model, *(probe.answered_by for probe in probes)}
        answered |= {name for probe in probes if (name := _answered_by(probe, found.model, by_user))}
    if not found.refused:
        raise SetupError(f"The server cannot be used. {' '.join(dict.fromkeys(found.unusable.values()))}")
    facts = await asyncio.gather(*(ask(client, listing.target, listing.entry(found.model)) for listing in listings))
    reported = together(facts)
    found.details = {
        "model": found.model,
        # Only if the answers carry another name: an alias, or a router's choice.
        **({"answered_by": ", ".join(sorted(answered))} if answered else {}),
        "models": [*dict.fromkeys(one.id for listing in listings for one in listing.listed or ())],
        "not_listed_by": [listing.target.url for listing in listings if not listing.entry(found.model)],
        "server": ", ".join(dict.fromkeys(target.software for target in client.targets if target.software)),
        "version": reported.pop("version", None),
        "reported": {**reported},
        "counting": counting,
        "refused_fields": {api: [*sorted(names)] for api, names in found.refused.items()},
        "unusable": {str(api): reason for api, reason in found.unusable.items()},
    }
    return found


def _refuse_what_is_needed(api: Api, refused: Collection[str], probes: Sequence[Probe], generation: Generation) -> None:
    needed = undroppable(refused, generation)
    if needed is None:
        return
    name = needed.split(" ", 1)[0]
    probe = next(probe for probe in probes if name in probe.refused)
    words = probe.said.get(name, "")
    raise InputError(
        f"The profile asks for {needed}, which {ROUTES[api]} does not accept at {probe.listing.target.url}"
        + (f" ({words})" if words else "")
        + ": use a profile that works without it, or another server."
    )


def _answered_by(probe: Probe, model: str, by_user: bool) -> str:
    """Return the other name that a server's answers carry, or nothing. Raises SetupError if that is another model.

    A server may have several names for one model, or add a version (gpt-4o: gpt-4o-2024-08-06). If the user chose the
    name, any name in the answers is accepted, unless the server lists it as a different model.
    """
    name = probe.answered_by
    if not name or name == model:
        return ""
    entry, other = probe.listing.entry(model), probe.listing.entry(name)
    alias = entry is not None and other is not None and entry.root == other.root != ""
    if alias or (entry is not None and same_model(entry.root, name)) or same_model(name, model):
        return name
    version = name.startswith(model) and VERSION.fullmatch(name[len(model) :]) is not None
    if other is None and (by_user or version):
        return name
    raise SetupError(
        f"{probe.listing.target.url} was asked for {model} but answers as {name}, which is another model. Check the "
        "configuration of the server or router, or set benchmark_endpoint_model to the model that should answer."
    )
