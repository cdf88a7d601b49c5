"""What a server is and which fields it takes: found out once, before anything is measured."""

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
# What a server may put behind the name that it was asked for: a date, a revision, a tag.
VERSION = re.compile(r"-\d[\d.-]*|[@:][\w./-]+")


@dataclass
class Found:
    """How to ask the servers, and what to say of them in the result."""

    model: str
    names: set[str] = field(default_factory=set)
    """Under which it may answer: another name is another model."""
    refused: dict[Api, set[str]] = field(default_factory=dict)
    """Fields that a server does not take, which are left out for all of them."""
    unusable: dict[Api, str] = field(default_factory=dict)
    """Why a route cannot be used, a sentence."""
    without_ids: dict[Api, str] = field(default_factory=dict)
    """Routes whose answers come without token ids: at which server."""
    details: dict[str, JsonValue] = field(default_factory=dict)

    def refusal(self, api: Api, greedy: bool) -> str | None:
        """Return why a route cannot answer a query, a sentence; None: it can. `greedy`: without sampling."""
        if reason := self.unusable.get(api):
            return f"{ROUTES[api]} cannot be used: {reason}"
        if greedy and "temperature" in self.refused[api]:
            return f"{ROUTES[api]} takes no temperature: it cannot be asked to answer without sampling."
        return None

    def require(self, asked: Literal["auto", "completions", "chat"], demands: Demands) -> None:
        """Raise InputError where the servers cannot do what a run demands with `benchmark_endpoint_api` like that."""
        kinds = [has_ids for has_ids, come in ((False, demands.texts), (True, demands.ids)) if come]
        for api in dict.fromkeys(api_for(asked, has_ids) for has_ids in kinds):
            if reason := self.refusal(api, demands.greedy):
                raise InputError(f"The profile cannot be run on this server: {reason}")
            if demands.token_ids and api in self.without_ids:
                raise InputError(
                    f"{self.without_ids[api]} reports no token ids, and answers are judged by their ids, or are part "
                    "of a next prompt: take a server that returns them; or set benchmark_accuracy to off, leave "
                    "benchmark_audit empty, and take no conversations."
                )


def refuse_foreign_server(client: Client) -> None:
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
    """Ask the servers for their models, for what they are, and with tiny requests for the fields that they take.

    Raises SetupError where one does not answer, does not serve the model or has no route that can be used; InputError
    where it does not take a field that the profile needs.
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
        # What one server refuses is left out for all: the others have to take it so too.
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
        # Only where the answers carry another name: an alias, or a router's choice.
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
        f"The profile asks for {needed}, which {ROUTES[api]} does not take at {probe.listing.target.url}"
        + (f" ({words})" if words else "")
        + ": take a profile that does without, or another server."
    )


def _answered_by(probe: Probe, model: str, by_user: bool) -> str:
    """Return the other name under which a server answers, or nothing. Raises SetupError where that is another model.

    A server may have several names for one model, or say its version (gpt-4o: gpt-4o-2024-08-06). A name that the user
    gave is the user's word, unless the server lists the answering model as one of its own beside it.
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
        f"{probe.listing.target.url} was asked for {model} and answers as {name}: another model than the one that is "
        "to be measured. Look at the server's or router's configuration, or set benchmark_endpoint_model to the model "
        "that it is to answer with."
    )
