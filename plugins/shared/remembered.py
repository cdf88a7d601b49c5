"""Variables that are made once: ansible-core puts a node's together, and templates each, for whoever asks.

Together that takes milliseconds, and one task may ask for all nodes' many times. A task has a worker of its own,
in which they stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Remembered(Mapping[str, Any]):
    """The same mapping, whose values are made when they are first asked for."""

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
    """`hostvars`: each node's variables, and each of these, made once."""

    def __init__(self, hostvars: Any) -> None:
        super().__init__(hostvars)
        self._raw: dict[str, Any] = {}

    def raw_get(self, node: str) -> Any:
        """Return a node's variables as they are written: templates too."""
        if node not in self._raw:
            self._raw[node] = self._mapping.raw_get(node)  # type: ignore[attr-defined]
        return self._raw[node]

    def _make(self, name: str) -> Any:
        return Remembered(self._mapping[name])


def remembering(task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a task's variables with `hostvars` that are made once, where there are any."""
    return {**task_vars, "hostvars": HostVars(task_vars["hostvars"])} if "hostvars" in task_vars else task_vars
