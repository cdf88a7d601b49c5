"""One query in flight: the next one is scheduled the moment the last one completed."""

from __future__ import annotations

from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Workload


class Scenario(interfaces.Scenario):
    """The closed loop. Its QPS is what one user who never pauses would see, not what the node could serve."""

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the queries one after the other; for accuracy, each prompt once."""
        planned = len(workload.prompts) if conditions.purpose == "accuracy" else workload.samples
        scheduled_ns = interfaces.now_ns()
        for index in range(planned or len(workload.prompts)):
            query = workload.query(index)
            issuer.issue(query, scheduled_ns)
            scheduled_ns = issuer.wait(query)
        return Outcome()
