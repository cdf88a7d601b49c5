"""What the client of servers recorded while measuring, besides the samples."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.sample import Distribution


class PrefixCache(Record):
    """Prompt tokens that the servers took from a cache instead of computing them, in the measuring window."""

    cached_tokens: Count | None = Field(None, description="absent: no server reports it")
    prompt_tokens: Count | None = Field(None, description="all prompt tokens; absent: not reported")
    source: Text = Field(description="the counters or fields that were read, or why it is unknown")


class Serving(Record):
    """One measurement's connections to its servers."""

    prefix_cache: PrefixCache | None = None
    resent: Count = Field(
        0, description="queries sent again on a new connection: the reused one had closed before any byte came"
    )
    waited: Count = Field(0, description="queries that waited for a free connection")
    max_connections: Count | None = Field(None, description="most connections open at once; absent: no limit")
    outputs: dict[Name, Count] = Field(
        default_factory=dict, description="kind of output -> answers that contained it; all kinds count as tokens"
    )
    tail_ms: Distribution | None = Field(
        None, description="from the last output until the end of the stream; not part of any latency"
    )
