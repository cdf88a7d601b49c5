"""One query in flight: the next one is scheduled the moment the last one completed."""

from __future__ import annotations

from benchmark.node import interfaces
from benchmark.node.interfaces import Issuer, Query


class Scenario(interfaces.Scenario):
    """The closed loop. Its QPS is what one user who never pauses would see, not what the node could serve."""

    def run(self, queries: list[Query], issuer: Issuer) -> None:
        """Issue the queries one after the other."""
        scheduled_ns = interfaces.now_ns()
        for query in queries:
            issuer.issue(query, scheduled_ns)
            scheduled_ns = issuer.wait(query)
