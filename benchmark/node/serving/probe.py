"""Find out which fields one route of one server accepts, with tiny requests before the measurement."""

from __future__ import annotations

import re
from collections.abc import Collection

from benchmark.node.serving.client import ALONE, Client, HttpError, Request
from benchmark.node.serving.models import Listing
from benchmark.node.serving.reply import Reply, ReplyError
from benchmark.node.serving.request import LENGTH, OPTIONAL, PROBE, PROBE_TOKENS, ROUTES, Api, body
from benchmark.profiles import Generation

REFUSES = (400, 422)
"""Statuses of servers that do not accept a field."""
# How servers say that they do not serve a model, whatever the status.
NO_MODEL = re.compile(
    r"model\b.{0,200}?\b(does not exist|doesn't exist|not found|is not available|is not loaded)"
    r"|(unknown|no such) model\b|model_not_found",
    re.IGNORECASE,
)


class Probe:
    """Finds out which fields a server's route accepts: all at once, and if that is refused, one by one."""

    def __init__(self, client: Client, listing: Listing, api: Api, model: str, generation: Generation) -> None:
        self.listing = listing
        self.refused: set[str] = set()
        self.said: dict[str, str] = {}
        """Field -> the server's refusal of it."""
        self.reason = ""
        """Why the route cannot be used, as a sentence."""
        self.counting = ""
        self.has_ids = False
        """Whether the answer has the ids of its tokens."""
        self.answered_by = ""
        """The model's name in the answers; empty: they have none."""
        self._client = client
        self._api: Api = api
        self._model = model
        self._generation = generation

    async def run(self) -> None:
        """Fill in the findings, or `reason` if the route cannot be used."""
        try:
            if await self._refusal(()) is not None:
                await self._one_by_one()
        except ReplyError as error:
            self.reason = self._why(error)

    async def confirm(self, refused: Collection[str]) -> None:
        """Send a request without these fields, unless `run` has found the same ones."""
        if self.reason or set(refused) == self.refused:
            return
        try:
            await self._ask(refused)
        except ReplyError as error:
            self.reason = self._why(error)

    async def _one_by_one(self) -> None:
        """Begin without all optional fields, and add them one by one, keeping those that are accepted."""
        missing = [name for name in OPTIONAL if name in body(self._api, self._model, PROBE, self._generation)]
        without = set(missing)
        refusal = await self._refusal(without)
        if refusal is not None:
            without.add(LENGTH)
            if await self._refusal(without) is not None:
                raise refusal
            self.said[LENGTH] = str(refusal)
        for name in missing:
            refusal = await self._refusal(without - {name})
            if refusal is None:
                without.discard(name)
            else:
                self.said[name] = str(refusal)
        self.refused = without

    async def _refusal(self, without: Collection[str]) -> HttpError | None:
        """Return the server's refusal of a request; None: it accepts it."""
        try:
            await self._ask(without)
        except HttpError as error:
            if error.status in REFUSES and not NO_MODEL.search(str(error)):
                return error
            raise
        return None

    async def _ask(self, without: Collection[str]) -> None:
        replies: list[Reply] = []
        fields = body(self._api, self._model, PROBE, self._generation, without, PROBE_TOKENS)
        request = Request(ROUTES[self._api], fields)
        await self._client.ask(self.listing.target, request, lambda at_ns, token_id: None, replies.append, ALONE)
        self.counting = replies[0].counting
        self.has_ids = replies[0].first_id is not None
        self.answered_by = replies[0].model

    def _why(self, error: ReplyError) -> str:
        if isinstance(error, HttpError) and NO_MODEL.search(str(error)):
            return f"it does not serve {self._model} and {self.listing.words}: {error}"
        missing = self.listing.listed is not None and self.listing.entry(self._model) is None
        but = f" (asked for {self._model}; it {self.listing.words})" if missing else ""
        if isinstance(error, HttpError) and error.status == 404:
            return f"there is no {ROUTES[self._api]}: {error}{but}"
        return f"{error}{but}"
