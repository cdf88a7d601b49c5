"""What is said of a module of Ansible's that failed on a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def why_failed(done: Mapping[str, Any], python: str) -> str:
    """Return why a module failed: in its own words, or in those of a Python that ran none."""
    if "module_stdout" not in done:
        return str(done.get("msg") or "the module failed without a message")
    said = " ".join(f"{done['module_stdout']} {done.get('module_stderr', '')}".split())[-300:].rstrip(".")
    return f"{python} on the node cannot run Ansible's modules: {said or 'it printed nothing'}."
