"""The block at the bottom of a terminal, as a terminal shows it."""

import io
import sys
import threading
from pathlib import Path

import pyte
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "shared"))

from terminal_block import Block, draws


class Terminal(io.StringIO):
    """A stream that ends on a screen."""

    def __init__(self, screen: pyte.Screen) -> None:
        super().__init__()
        self.shown = pyte.Stream(screen)

    def write(self, text: str) -> int:
        self.shown.feed(text.replace("\n", "\r\n"))  # as a terminal's line discipline does
        return len(text)


def show_on_a_screen(monkeypatch: pytest.MonkeyPatch) -> pyte.Screen:
    """Return the screen of the terminal that stdout and stderr are from now on."""
    made = pyte.Screen(20, 6)
    terminal = Terminal(made)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    return made


def seen(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display if line.strip()]


def test_output_goes_above_and_the_block_stays_at_the_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on_a_screen(monkeypatch)
    before = sys.stdout
    block = Block(threading.RLock())
    print("first")
    block.open()
    block.show(["a 1", "b 1"])
    assert seen(screen) == ["first", "a 1", "b 1"]
    block.show(["a 2", "b 2"])
    print("second")
    print("an error", file=sys.stderr)
    assert seen(screen) == ["first", "second", "an error", "a 2", "b 2"]
    block.show(["alone"])
    assert seen(screen) == ["first", "second", "an error", "alone"]
    block.close()
    print("third")
    assert seen(screen) == ["first", "second", "an error", "third"]
    assert sys.stdout is before


def test_it_scrolls_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on_a_screen(monkeypatch)
    block = Block(threading.RLock())
    block.open()
    for number in range(30):
        block.show([f"a {number}", f"b {number}"])
        print(f"line {number}")
    assert seen(screen) == ["line 26", "line 27", "line 28", "line 29", "a 29", "b 29"]
    block.close()
    assert seen(screen) == ["line 26", "line 27", "line 28", "line 29"]


def test_it_waits_for_the_end_of_a_line_that_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on_a_screen(monkeypatch)
    block = Block(threading.RLock())
    block.open()
    block.show(["a"])
    print("half ", end="")
    block.show(["b"])
    assert seen(screen) == ["half"]
    print("a line")
    assert seen(screen) == ["half a line", "b"]


def test_a_line_that_is_wider_than_the_terminal_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = show_on_a_screen(monkeypatch)
    block = Block(threading.RLock())
    block.open()
    block.show(["x" * 50, "b"])
    assert len(seen(screen)) == 2
    block.close()
    assert seen(screen) == []


@pytest.mark.parametrize(
    ("environment", "terminal", "drawn"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, True),  # it has no colours
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "AWX_ISOLATED_DATA_DIR": "/artifacts"}, True, False),  # ansible-runner's own terminal
    ],
)
def test_it_is_drawn_only_where_somebody_looks(environment: dict[str, str], terminal: bool, drawn: bool) -> None:
    assert draws(environment, terminal) is drawn
