"""How many files one process may have open that speaks with all nodes."""

from __future__ import annotations

import resource

# Three for each node's session, one for its directory, and what ansible-core has open.
PER_NODE, OWN = 6, 512


def want_descriptors(nodes: int) -> None:
    """Raise this process's limit, as far as it may, to what so many nodes take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OWN + PER_NODE * nodes
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
