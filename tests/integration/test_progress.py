"""What a person at a real terminal sees while the nodes are at it."""

from __future__ import annotations

import time

import pexpect
import pyte
import yaml

from tests.integration.conftest import DATA, Playbooks
from tests.integration.ssh_nodes import CHECKOUT

ROWS, COLUMNS = 24, 90


class Screen:
    """A terminal with a playbook in it."""

    def __init__(self, playbooks: Playbooks, *words: str, **environment: str) -> None:
        command = playbooks.command("benchmark", *words)
        self.child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(CHECKOUT),
            env=playbooks.environment(**environment),
            encoding="utf-8",
            dimensions=(ROWS, COLUMNS),
        )
        self.raw = ""
        self._screen = pyte.HistoryScreen(COLUMNS, ROWS, history=10_000)
        self._stream = pyte.Stream(self._screen)

    def now(self) -> list[str]:
        """Return the lines that are on the screen."""
        return [line.rstrip() for line in self._screen.display]

    def whole(self) -> list[str]:
        """Return everything that ever scrolled off it too."""
        above = ["".join(line[x].data for x in range(COLUMNS)).rstrip() for line in self._screen.history.top]
        return above + self.now()

    def until(self, *words: str) -> list[str]:
        """Wait until one line holds all of the words; return the screen of that moment."""
        limit = time.monotonic() + 60
        while not any(all(word in line for word in words) for line in self.now()):
            assert time.monotonic() < limit, "\n".join(self.whole())
            self._read()
        return self.now()

    def end(self) -> int | None:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        self.child.close()
        code: int | None = self.child.exitstatus
        return code

    def _read(self) -> bool:
        try:
            text = self.child.read_nonblocking(100_000, timeout=60)
        except pexpect.EOF:
            return False
        self.raw += text
        self._stream.feed(text)
        return True


def test_a_person_sees_every_node_live(playbooks: Playbooks) -> None:
    profile = playbooks.directory / "long.yaml"
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    profile.write_text(yaml.safe_dump({**content, "samples": 120}))
    screen = Screen(playbooks, "-e", f"benchmark_profile={profile}", TERM="xterm")
    shown = screen.until("jw3", "measuring", "/120", "0:0")
    (top,) = [number for number, line in enumerate(shown) if line.startswith("2 nodes: ")]
    assert "2 measuring" in shown[top]
    assert "/240 queries" in shown[top]
    assert shown[top + 1].split() == ["NODE", "STAGE", "QUERIES", "QPS", "LEFT"]
    assert [line.split()[0] for line in shown[top + 2 : top + 4]] == ["jw2", "jw3"]
    assert not any(shown[top + 4 :]), "the block is at the bottom"
    assert screen.end() == 0, "\n".join(screen.whole())
    left = screen.whole()
    assert not [line for line in left if line.startswith(("NODE  ", "2 nodes: "))], "nothing of it is left"
    reported = " ".join(" ".join(left).split())
    for task in (
        "Probe the nodes",
        "Start the runs on all nodes, measure, and fetch the results",
        "Make the cluster summary",
    ):
        assert reported.count(f"{task}") == 1, reported
    assert all(f"changed: [{node}]" in reported.partition("Start the runs")[2] for node in ("jw2", "jw3"))
    assert "VALID: every node of the run is counted and valid." in reported
