"""Users in conversations: everything said before, including the answers, is part of the next prompt.

A closed loop. A user's next question is due when the previous answer has arrived and the user has thought, and the next
conversation begins when the last one has ended. The time of a query counts from when it was due.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from benchmark.errors import RunError
from benchmark.node import interfaces
from benchmark.node.interfaces import Conditions, Issuer, Outcome, Prompt, Workload, now_ns
from benchmark.node.options import check
from benchmark.node.users import run_users
from benchmark.schedule_options import ConversationOptions

Turns = tuple[tuple[int, int], ...]
"""A conversation: the number of each query, and of its prompt."""


class Scenario(interfaces.Scenario):
    """Conversations of a given number of users per GPU."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for unknown options."""
        self.options = check(ConversationOptions, options, "scenario_options of the scenario conversations")

    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the turns of all conversations, and return when the last has ended.

        The turns after a failed one cannot be issued: they stay unfinished.
        """
        conditions.begins(0.0, workload.samples or len(workload.prompts))
        talks = _Talks(workload, issuer)
        run_users(self.options.users * conditions.replicas, talks.run)
        return Outcome()


class _Talks:
    """Users who take their conversations from one list."""

    def __init__(self, workload: Workload, issuer: Issuer) -> None:
        self._workload = workload
        self._issuer = issuer
        self._issuing = threading.Lock()
        self._conversations = planned(workload.prompts, workload.samples or len(workload.prompts))

    def run(self, stopped: threading.Event) -> None:
        """Run one user."""
        due_ns = now_ns()
        while not stopped.is_set():
            with self._issuing:
                turns = next(self._conversations, None)
            if turns is None:
                return
            due_ns = self._converse(turns, due_ns, stopped)

    def _converse(self, turns: Turns, due_ns: int, stopped: threading.Event) -> int:
        """Issue one question after the other; return the time at which the conversation ended."""
        said: tuple[int, ...] = ()
        for index, number in turns:
            prompt = self._workload.prompts[number]
            due_ns += round(prompt.think_s * 1e9)
            while (left_ns := due_ns - now_ns()) > 0:
                if stopped.wait(left_ns / 1e9):
                    return due_ns
            said += prompt.token_ids or ()
            query = replace(self._workload.query(index, number), prompt=replace(prompt, token_ids=said))
            # Engines get one query at a time: tokenizers may not be thread-safe.
            with self._issuing:
                if stopped.is_set():
                    return due_ns
                self._issuer.issue(query, due_ns)
            due_ns, answer = self._issuer.answer(query)
            if answer is None:
                return due_ns
            if not answer.token_ids:
                raise RunError(
                    "The engine reports no token ids for its answers, which the next prompt of a conversation needs: "
                    "use a server that returns them."
                )
            said += answer.token_ids
        return due_ns


def planned(prompts: Sequence[Prompt], queries: int) -> Iterator[Turns]:
    """Yield conversations with `queries` queries in all, starting over if there are too few; the last is cut off.

    Queries are numbered in the order of conversations, whichever user takes them.
    """
    chains: list[list[int]] = []
    for number, prompt in enumerate(prompts):
        if prompt.follows is None or not chains:
            chains.append([])
        chains[-1].append(number)
    index = 0
    for chain in cycle(chains):
        if index >= queries:
            return
        turns = tuple((index + turn, number) for turn, number in enumerate(chain[: queries - index]))
        yield turns
        index += len(turns)
