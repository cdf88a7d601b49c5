"""The goodput of several nodes together, without the code that reads samples: text needs it too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark.records import Goodput


def together(each: Sequence[Goodput | None]) -> Goodput | None:
    """Return the sum over nodes; None if it is undefined for one, or their limits differ."""
    known = [one for one in each if one is not None]
    if not known or len(known) < len(each) or any(one.slo != known[0].slo for one in known):
        return None
    queries, count = sum(one.queries for one in known), sum(one.met for one in known)
    users = [one.users for one in known if one.users is not None]
    return Goodput(
        slo=known[0].slo,
        queries=queries,
        met=count,
        share=count / queries,
        qps=_sum([one.qps for one in known]),
        tokens_per_s=_sum([one.tokens_per_s for one in known]),
        in_flight=_sum([one.in_flight for one in known]),
        users=sum(users) if len(users) == len(known) else None,
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
