"""A listener for tests of engines."""

from __future__ import annotations

import threading

from benchmark.node.interfaces import Answer, Query

# Far above what any test needs: a lost query fails the test instead of hanging it.
PATIENCE_S = 120


class Heard:
    """Remembers what an engine told; each query ends exactly once and has at most one first token before that."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.tokens: dict[int, tuple[int, ...]] = {}
        self.inputs: dict[int, int] = {}
        self.errors: dict[int, str] = {}
        self.wrong: list[str] = []
        self._changed = threading.Condition()

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        with self._changed:
            self._note(query.index in self.first or self._ended(query.index), f"{query.index}: first token too late")
            self.first[query.index] = at_ns
            self._changed.notify_all()

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        with self._changed:
            self._note(self._ended(query.index), f"{query.index}: ended twice")
            self.last[query.index], self.tokens[query.index] = at_ns, answer.token_ids
            self.inputs[query.index] = answer.input_tokens
            self._changed.notify_all()

    def failed(self, query: Query, error: str) -> None:
        with self._changed:
            self._note(self._ended(query.index), f"{query.index}: ended twice")
            self.errors[query.index] = error
            self._changed.notify_all()

    def wait(self, queries: int) -> None:
        """Return when that many have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.last) + len(self.errors) >= queries, PATIENCE_S), self.errors
        assert not self.wrong

    def wait_for_first_tokens(self, queries: int) -> None:
        """Return when that many have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.first) >= queries, PATIENCE_S), self.errors

    def _ended(self, index: int) -> bool:
        return index in self.last or index in self.errors

    def _note(self, condition: bool, problem: str) -> None:
        if condition:
            self.wrong.append(problem)
