"""The failure message of an Ansible module that failed on a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def why_failed(done: Mapping[str, Any], python: str) -> str:
    """Return why a module failed: its own message, or the output of a Python that could not run it."""
    if "module_stdout" not in done:
        return str(done.get("msg") or "the module failed without a message")
    said = " ".join(f"{done['module_stdout']} {done.get('module_stderr', '')}".split())[-300:].rstrip(".")
    return f"{python} on the node cannot run Ansible's modules: {said or 'it printed nothing'}."
