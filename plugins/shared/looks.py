"""Ask a node at once for all that several actions look at first: on most runs, nothing has to be done."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

_SCRIPT = 'for look in "$@"; do eval "$look" 2> /dev/null < /dev/null; echo "{end} $?"; done'


@dataclass(frozen=True)
class Looks:
    """Commands that change nothing on the node; see `NodeAction.looks`."""

    commands: tuple[str, ...]
    # What separates their answers: nothing that a node prints of its own accord.
    _end: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def of(cls, commands: Iterable[str]) -> Looks:
        """Return them, each once."""
        return cls(tuple(dict.fromkeys(commands)))

    @property
    def command(self) -> str:
        """The simple command of /bin/sh that runs all."""
        return shlex.join(["sh", "-c", _SCRIPT.format(end=self._end), "looks", *self.commands])

    def heard(self, text: str) -> dict[str, str]:
        """Return what those printed that succeeded, by the command."""
        answers = text.split(f"{self._end} ")
        # Each begins with how the one before it ended.
        codes = [answer.partition("\n")[0] for answer in answers[1:]]
        texts = [answers[0], *(answer.partition("\n")[2] for answer in answers[1:])]
        return {look: text for look, text, code in zip(self.commands, texts, codes, strict=False) if code == "0"}
