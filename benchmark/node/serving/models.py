"""Choose which of a server's models is measured: the requested one, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from benchmark.errors import SetupError
from benchmark.node.serving.client import Client, HttpError, Target
from benchmark.node.serving.reply import ReplyError
from benchmark.served import same_model
from benchmark.settings import Settings

ROUTE = "/v1/models"
# Names listed in a sentence; the rest are counted.
MOST_NAMED = 10


@dataclass(frozen=True)
class Listed:
    """One entry of a server's list. `root`: the model behind the name, if the server reports it (vLLM, SGLang)."""

    id: str
    root: str = ""
    max_model_len: int | None = None


@dataclass(frozen=True)
class Listing:
    """The models that one server lists; `listed` is None if it has no list."""

    target: Target
    listed: tuple[Listed, ...] | None

    def entry(self, model: str) -> Listed | None:
        """Return the entry with that id."""
        return next((one for one in self.listed or () if one.id == model), None)

    @property
    def words(self) -> str:
        """The list, as the end of a sentence."""
        if self.listed is None:
            return "has no list of models"
        return f"lists {named([one.id for one in self.listed])}" if self.listed else "lists no models"


def named(ids: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    rest = len(ids) - MOST_NAMED
    return ", ".join(one[:200] for one in ids[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


async def list_models(client: Client, target: Target, settings: Settings) -> Listing:
    """Return the models that a server lists. Raises SetupError if it has no list and the user named no model.

    A list is optional: `transformers serve` lists the Hugging Face cache, and answers 500 if there is none.
    """
    named_by_user = bool(settings.benchmark_endpoint_model)
    try:
        content = from_json(await client.get(target, ROUTE))
        return Listing(target, tuple(_entries(content)))
    except HttpError as error:
        if named_by_user and error.status not in (401, 403):
            return Listing(target, None)  # the probes find out whether it has that model
        hint = f"{'' if str(error).endswith('.') else '.'} {_key_hint(settings)}" if error.status in (401, 403) else ""
        raise SetupError(f"{target.url}{ROUTE}: {error}{hint}") from None
    except ReplyError as error:
        raise SetupError(str(error)) from None
    except (ValueError, AttributeError, KeyError, TypeError):
        if named_by_user:
            return Listing(target, None)
        raise SetupError(f"{target.url}{ROUTE} does not answer like an OpenAI-compatible server.") from None


def _key_hint(settings: Settings) -> str:
    if settings.benchmark_system == "cluster":
        return "Make it require the run's key, $BENCHMARK_SERVE_API_KEY, and accept no other."
    return "Set benchmark_endpoint_api_key."


def choose(listings: Sequence[Listing], settings: Settings) -> str:
    """Return the model name to send to all servers. Raises SetupError, with what they list, if there is none.

    `benchmark_endpoint_model` is used as it is: the probes find out whether each server accepts it. Without it, every
    server must list benchmark_model, all under the same name.
    """
    if settings.benchmark_endpoint_model:
        return settings.benchmark_endpoint_model
    wanted = settings.benchmark_model
    found: dict[str, Listing] = {}
    for listing in listings:
        if not listing.listed:
            raise SetupError(
                f"{listing.target.url} lists no models: set benchmark_endpoint_model to the model that it serves."
            )
        matches = matching(listing.listed, wanted)
        if len(matches) != 1:
            why = (
                f"more than one of these may be {wanted}"
                if matches
                else f"{wanted} (benchmark_model) is not among them"
            )
            raise SetupError(
                f"{listing.target.url} {listing.words}; {why}: set benchmark_endpoint_model to the name of the model "
                "to measure."
            )
        found.setdefault(matches[0].id, listing)
    if len(found) > 1:
        reported = "; ".join(f"{one.target.url} calls it {name}" for name, one in found.items())
        raise SetupError(
            f"The servers have different names for {wanted} ({reported}), but every query uses one name. Start them "
            "with the same name, or set benchmark_endpoint_model to a name that all accept."
        )
    return next(iter(found))


def matching(listed: Sequence[Listed], wanted: str) -> list[Listed]:
    """Return the entries that match `wanted`: by id, else by root, else by the last part of a path.

    Names with the same root are one model: the first of them is returned.
    """
    rules = (
        lambda one: one.id == wanted,
        lambda one: one.root == wanted,
        lambda one: same_model(one.id, wanted) or same_model(one.root, wanted),
    )
    for rule in rules:
        if found := [one for one in listed if rule(one)]:
            return list({one.root or one.id: one for one in reversed(found)}.values())
    return []


def _entries(content: Any) -> list[Listed]:
    """Return the list's entries; raises AttributeError, KeyError or TypeError if it is not such a list."""
    entries = []
    for one in content["data"]:
        length = one.get("max_model_len")
        entries.append(
            Listed(
                id=str(one["id"])[:1000],
                root=root[:1000] if isinstance(root := one.get("root"), str) else "",
                max_model_len=length if type(length) is int and length > 0 else None,
            )
        )
    return entries
