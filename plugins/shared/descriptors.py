"""Raise the limit of open files for a process that talks to all nodes."""

from __future__ import annotations

import resource

# For each node three for its session, one for its directory, and a reserve; and those of ansible-core.
PER_NODE, OWN = 6, 512


def want_descriptors(nodes: int) -> None:
    """Raise this process's limit, as far as allowed, to what this many nodes need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OWN + PER_NODE * nodes
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
