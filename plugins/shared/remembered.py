"""Cache a task's variables: ansible-core collects a node's variables, and renders each, at every access.

That takes milliseconds, and one task may read those of all nodes many times. Each task has its own worker, in which
they do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Remembered(Mapping[str, Any]):
    """The same mapping, with values that are computed at first access and cached."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self._mapping = mapping
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._mapping

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def _make(self, name: str) -> Any:
        return self._mapping[name]


class HostVars(Remembered):
    """`hostvars`, with each node's variables, and each variable, computed once."""

    def __init__(self, hostvars: Any) -> None:
        super().__init__(hostvars)
        self._raw: dict[str, Any] = {}

    def raw_get(self, node: str) -> Any:
        """Return a node's variables as written, with unrendered templates."""
        if node not in self._raw:
            self._raw[node] = self._mapping.raw_get(node)  # type: ignore[attr-defined]
        return self._raw[node]

    def _make(self, name: str) -> Any:
        return Remembered(self._mapping[name])


def remembering(task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a task's variables with cached `hostvars`, if it has any."""
    return {**task_vars, "hostvars": HostVars(task_vars["hostvars"])} if "hostvars" in task_vars else task_vars
