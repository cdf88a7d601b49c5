"""Nodes on this machine, each a directory and a shell, that do by hand what a run does."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from gathering import Gathering, Partner, State
from run_action import script_text
from speaking import Session, Speaker

SCRIPTS = Path(__file__).parents[3] / "roles/benchmark/files"


@dataclass
class Node:
    """What a run does on its node, by hand."""

    directory: Path
    name: str
    calls: int = 0

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True)

    @property
    def place(self) -> Path:
        return self.directory / "run" / self.name

    def put(self, name: str, content: str) -> None:
        beside = self.place / f"{name}.tmp"
        beside.write_text(content)
        beside.rename(self.place / name)

    def call(self) -> Speaker:
        self.calls += 1
        words = [str(self.place.parent), self.name, "ready", "go", "1"]
        return Session(["sh", str(SCRIPTS / "together.sh"), *words, *map(script_text, ("pack.sh", "clean.sh"))])

    def partner(self, within_s: float = 60, call: Callable[[], Speaker] | None = None) -> Partner:
        return Partner(self.name, within_s, call or self.call, lambda: None)

    def starting(self, python_env: str, order: str, within_s: float = 60, look: str = "") -> Partner:
        """A partner whose run is still to be started, after the look."""

        def call() -> Speaker:
            there = [script_text("start.sh"), python_env, "60", str(len(order) + 2), *([look] if look else [])]
            words = [str(self.place.parent), self.name, "ready", "go", "1", *map(script_text, ("pack.sh", "clean.sh"))]
            session = Session(["sh", str(SCRIPTS / "together.sh"), *words, *(there if not self.calls else [])])
            self.calls += 1
            session.say(f"\n{order}")
            return session

        return Partner(self.name, within_s, call, lambda: None, State.STARTING)


@dataclass
class Heard:
    """What the controller heard and said."""

    told: list[tuple[str, str]] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)

    def gather(self, *partners: Partner) -> Gathering:
        return Gathering(
            partners, lambda node, _, told: self.told.append((node, told.state)), lambda *words: self.said.append(words)
        )


def told(partners: list[Partner]) -> list[State]:
    return [one.state for one in partners]
