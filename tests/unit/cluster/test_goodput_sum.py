"""The goodput of several nodes together."""

from __future__ import annotations

from benchmark.cluster.goodput_sum import together
from benchmark.records import Goodput, Slo


def test_nodes_add_up_or_are_undefined() -> None:
    slo = Slo(ttft_ms=500, tpot_ms=30)
    one = Goodput(slo=slo, queries=100, met=90, share=0.9, qps=9, tokens_per_s=90, in_flight=3.5, users=4)
    both = together([one, one.model_copy(update={"met": 100, "share": 1.0, "users": 5})])
    assert both is not None
    assert (both.queries, both.met, both.share, both.qps, both.users) == (200, 190, 0.95, 18, 9)
    assert together([one, None]) is None
    assert together([one, one.model_copy(update={"slo": Slo(ttft_ms=500)})]) is None
