"""What the client of a server saw while measuring, beyond the samples."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.sample import Distribution


class PrefixCache(Record):
    """Prompt tokens that the servers took from a cache instead of computing them, in the measuring window."""

    cached_tokens: Count | None = Field(None, description="absent: no server reports it")
    prompt_tokens: Count | None = Field(None, description="of which these are a part; absent: not reported")
    source: Text = Field(description="the counters or fields that were read, or why nothing is known")


class Serving(Record):
    """One measurement's dealings with its servers."""

    prefix_cache: PrefixCache | None = None
    resent: Count = Field(
        0, description="queries sent once more on a fresh connection: the reused one had closed before any byte came"
    )
    waited: Count = Field(0, description="queries that waited for a free connection")
    max_connections: Count | None = Field(None, description="connections that may be open at once; absent: no limit")
    outputs: dict[Name, Count] = Field(
        default_factory=dict, description="kind of output -> answers that held it: all of it is counted as tokens"
    )
    tail_ms: Distribution | None = Field(
        None, description="from the last output until the stream ended: it delays no query and is in no latency"
    )
