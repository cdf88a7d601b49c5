"""One line of progress, as a node's terminal and the controller show it."""

from __future__ import annotations

from collections.abc import Mapping


def describe(content: Mapping[str, object]) -> str:
    """Return one line for the content of a progress file; what is missing or odd in it is left out."""
    state = str(content.get("state", "starting"))[:40]
    words = "".join(c for c in state if c.isprintable())
    done, total, rate, latency = (content.get(name) for name in ("done", "total", "qps", "latency_ms"))
    if isinstance(total, int) and total > 0:
        words += f" {done}/{total}"
    if isinstance(rate, float):
        words += f", {rate:.2f} QPS"
    if isinstance(latency, float):
        words += f", last answer {latency / 1000:.2f} s"
    return words
