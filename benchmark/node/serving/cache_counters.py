"""How many prompt tokens servers took from a cache instead of computing them: from their counters, and from usage.

A server's counters are at /metrics, in Prometheus' text format. They are read before and after a measurement, never
while queries are in flight, for at most READ_S. The other source is `usage.prompt_tokens_details.cached_tokens` in the
answers. The result is the larger of the two; if neither is known it is unknown, never 0.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.node.interfaces import Answer
from benchmark.node.serving.client import Client, Target
from benchmark.node.serving.reply import ReplyError
from benchmark.records import PrefixCache

READ_S = 1.0
ROUTE = "/metrics"
MOST_CHARACTERS = 3000
MOST_COUNTED = 2.0**53
LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\s*(?P<labels>\{.*\})?\s+(?P<value>[^\s{}]+)(\s+-?\d+)?\s*")
# If counters saw less than this share of the queries' prompt tokens, a URL leads to more than one server.
LEAST_SEEN = 0.5


@dataclass(frozen=True)
class Kind:
    """The counters of one kind of server, in tokens. Names are without `_total`, and with `_` for `:`.

    `hits` are added up. `queries` counts the tokens that were looked up: none if the cache is off. `prompts` counts
    every prompt token and exists from the start, whereas a counter of hits may appear with the first hit. `blocks`:
    hits count blocks, and this gauge gives the tokens per block.
    """

    hits: tuple[str, ...]
    queries: str = ""
    prompts: str = ""
    blocks: str = ""


# The first kind whose counters exist is used, as a server may have new names beside old ones.
KINDS = (
    # vLLM: hits in its GPU cache, and in that of a connector (LMCache, offloading).
    Kind(
        ("vllm_prefix_cache_hits", "vllm_external_prefix_cache_hits"), "vllm_prefix_cache_queries", "vllm_prompt_tokens"
    ),
    Kind(
        ("vllm_gpu_prefix_cache_hits", "vllm_cpu_prefix_cache_hits"),
        "vllm_gpu_prefix_cache_queries",
        "vllm_prompt_tokens",
    ),
    Kind(("sglang_cached_tokens",), prompts="sglang_prompt_tokens"),
    Kind(("trtllm_prompt_cached_tokens",), prompts="trtllm_prompt_tokens"),
    Kind(("trtllm_prompt_tokens_cached",), prompts="trtllm_prompt_tokens"),
    Kind(("trtllm_kv_cache_reused_blocks",), blocks="trtllm_kv_cache_tokens_per_block"),
    Kind(
        ('nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="reused"}',),
        blocks='nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"}',
    ),
)
# llama.cpp counts the prompt tokens that it computed: the others came from its cache.
COMPUTED = "llamacpp_prompt_tokens"
# If this changes, the server process is a new one.
STARTED = "process_start_time_seconds"


@dataclass(frozen=True)
class Reading:
    """One server's counters at one moment: family -> labels of a series -> value; or why they cannot be read."""

    families: dict[str, dict[str, float]] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    """Family -> its name as the server writes it."""
    why: str = ""


@dataclass
class Tally:
    """The usage reported in the answers of a window; only the client's thread adds to it."""

    answers: int = 0
    reported: int = 0
    """Answers whose usage reports cached tokens."""
    cached_tokens: int = 0
    prompt_tokens: int = 0

    def add(self, answer: Answer) -> None:
        """Count a completed query."""
        self.answers += 1
        self.prompt_tokens += answer.input_tokens
        if answer.cached_tokens is not None:
            self.reported += 1
            self.cached_tokens += answer.cached_tokens


@dataclass(frozen=True)
class _Counted:
    """Counts of a window, in tokens, or why there are none.

    `of`: tokens looked up in the cache; `seen`: all prompt tokens; `computed`: computed prompt tokens, if the server
    counts only these.
    """

    cached: int | None = None
    of: int | None = None
    seen: int | None = None
    computed: int | None = None
    source: str = ""
    why: str = ""


async def read(client: Client, target: Target) -> Reading:
    """Return a server's counters within READ_S; never raises."""
    try:
        text = await asyncio.wait_for(client.get(target, ROUTE), READ_S)
    except asyncio.TimeoutError:
        return Reading(why=f"{ROUTE} did not answer within {READ_S:g} s")
    except ReplyError as error:
        return Reading(why=f"{ROUTE}: {error}")
    except Exception as error:  # a counter must not cost a measurement
        return Reading(why=f"{ROUTE}: {type(error).__name__}: {error}")
    return parse(text)


async def read_all(client: Client) -> list[Reading]:
    """Return the counters of all servers, read concurrently, in the servers' order."""
    return list(await asyncio.gather(*(read(client, target) for target in client.targets)))


def parse(text: str) -> Reading:
    """Return the counters in Prometheus' text format; other lines are skipped."""
    reading = Reading()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            # A counter with labels has no line until it first counts.
            parts = line.split()
            if len(parts) > 2:
                reading.families.setdefault(_family(parts[2]), {})
                reading.spelled.setdefault(_family(parts[2]), parts[2])
            continue
        found = LINE.fullmatch(line)
        if line.startswith("#") or found is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        if 0 <= value < MOST_COUNTED:  # also skips NaN
            family = _family(found["name"])
            series = reading.families.setdefault(family, {})
            labels = found["labels"] or ""
            series[labels] = series.get(labels, 0) + value
            reading.spelled[family] = found["name"]
    return reading


def prefix_cache(urls: Sequence[str], before: Sequence[Reading], after: Sequence[Reading], tally: Tally) -> PrefixCache:
    """Return a window's cached tokens; the readings are of the servers at `urls`, in their order.

    `before` is empty if nothing was read then.
    """
    before = before or [Reading(why="its counters were not read before the measurement") for _ in urls]
    each = [_between(first, last) for first, last in zip(before, after, strict=True)]
    counted = _by_counters(urls, each, tally)
    by_usage = tally.reported == tally.answers > 0 or tally.cached_tokens > 0
    if by_usage and (counted.cached is None or tally.cached_tokens > counted.cached):
        return PrefixCache(
            cached_tokens=tally.cached_tokens,
            prompt_tokens=max(tally.prompt_tokens, tally.cached_tokens),
            source=f"usage.prompt_tokens_details.cached_tokens of {tally.reported} of {tally.answers} answers",
        )
    if counted.cached is None:
        return PrefixCache(source=f"{counted.why}; no usage.prompt_tokens_details in the answers"[:MOST_CHARACTERS])
    prompts = counted.of or counted.seen or tally.prompt_tokens
    return PrefixCache(
        cached_tokens=counted.cached,
        prompt_tokens=max(prompts, counted.cached),
        source=counted.source[:MOST_CHARACTERS],
    )


def _by_counters(urls: Sequence[str], each: Sequence[_Counted], tally: Tally) -> _Counted:
    """Add up the servers. Hits of some servers count even if others are unknown; 0 hits need all servers to say so."""
    sources = ", ".join(dict.fromkeys(one.source for one in each if one.source))
    if each and all(one.computed is not None for one in each):
        # Tokens of failed queries were computed too: the result may be too low, never too high.
        computed = sum(one.computed or 0 for one in each)
        return _Counted(
            max(0, tally.prompt_tokens - computed), tally.prompt_tokens, source=f"prompt tokens minus {sources}"
        )
    otherwise = "it counts only computed prompt tokens, unlike another server"
    reasons = [one.why or (otherwise if one.computed is not None else "") for one in each]
    unknown = "; ".join(f"{url} ({reason})" for url, reason in zip(urls, reasons, strict=True) if reason)
    cached, of = sum(one.cached or 0 for one in each), sum(one.of or 0 for one in each)
    if unknown and not cached:
        return _Counted(why=f"unknown for {unknown}")
    seen = sum(one.seen for one in each if one.seen is not None)
    if not cached and all(one.seen is not None for one in each) and seen < LEAST_SEEN * tally.prompt_tokens:
        return _Counted(
            why=f"{sources}: the servers counted {seen} of the {tally.prompt_tokens} prompt tokens of the answers, so "
            "a URL seems to lead to more than one server"
        )
    return _Counted(cached, of, seen, source=sources + (f"; unknown for {unknown}" if unknown else ""))


def _between(before: Reading, after: Reading) -> _Counted:
    """Return what one server counted between two readings."""
    if before.why or after.why:
        return _Counted(why=before.why or after.why)
    if before.families.get(STARTED) != after.families.get(STARTED):
        return _Counted(why="the server restarted during the measurement")
    for kind in KINDS:
        there = [name for name in kind.hits if _has(after, name)]
        if there:
            return _hits(kind, there, before, after)
    if _has(after, COMPUTED):
        name = after.spelled[COMPUTED]
        computed = _rise(COMPUTED, before, after)
        return _Counted(why=_fell(name)) if computed is None else _Counted(computed=computed, source=name)
    return _Counted(why=f"no counter of cached prompt tokens in {ROUTE}")


def _hits(kind: Kind, there: Sequence[str], before: Reading, after: Reading) -> _Counted:
    names = ", ".join(_spelled(after, name) for name in there)
    if not any(_has(before, name) for name in (*there, kind.prompts)) and any(_series(after, name) for name in there):
        return _Counted(why=f"{names} did not exist before the measurement")
    rises = [_rise(name, before, after) for name in there]
    if any(rise is None for rise in rises):
        return _Counted(why=_fell(names))
    cached = sum(rise or 0 for rise in rises)
    if kind.blocks:
        sizes = set(_series(after, kind.blocks).values())
        if len(sizes) != 1:
            # A block has at least one token, so this is a lower bound.
            return _Counted(cached, source=f"{names}, in blocks")
        return _Counted(round(cached * sizes.pop()), source=f"{names}, times the tokens per block")
    of = _rise(kind.queries, before, after) if _has(after, kind.queries) else None
    seen = _rise(kind.prompts, before, after) if _has(after, kind.prompts) else None
    return _Counted(cached, of, seen, source=names)


def _rise(name: str, before: Reading, after: Reading) -> int | None:
    """Return by how much a counter rose, summed over its labels; None if one of them fell or is gone."""
    first, last = _series(before, name), _series(after, name)
    if any(last.get(labels, -1.0) < value for labels, value in first.items()):
        return None
    return round(sum(last.values()) - sum(first.values()))


def _fell(names: str) -> str:
    return f"{names} fell during the measurement: the server restarted"


def _has(reading: Reading, name: str) -> bool:
    family, _, label = name.partition("{")
    return family != "" and family in reading.families and (not label or bool(_series(reading, name)))


def _series(reading: Reading, name: str) -> dict[str, float]:
    """Return the series of a family; for `family{label}` only those with this label."""
    family, _, label = name.partition("{")
    series = reading.families.get(family, {})
    wanted = label.rstrip("}")
    return {labels: value for labels, value in series.items() if wanted in labels} if wanted else series


def _spelled(reading: Reading, name: str) -> str:
    family, brace, label = name.partition("{")
    return reading.spelled.get(family, family) + brace + label


def _family(name: str) -> str:
    return name.replace(":", "_").removesuffix("_total")


class PrefixCacheCount:
    """Adds the tokens that servers took from their caches to a measurement's `Serving`."""

    def __init__(self, client: Client) -> None:
        self.tally = Tally()
        self._client = client
        self._before: Sequence[Reading] = ()

    def begin_window(self) -> None:
        """Read the servers' counters, for a second at most."""
        self.tally = Tally()
        self._before = self._client.call(read_all(self._client))

    def end_window(self) -> dict[str, PrefixCache]:
        """Read them again, and return the difference."""
        after = self._client.call(read_all(self._client))
        urls = [target.url for target in self._client.targets]
        return {"prefix_cache": prefix_cache(urls, self._before, after, self.tally)}
