import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from clock import TRIPS, round_trips


class Local:
    """What Ansible's local connection is to this."""

    transport = "local"


class Other:
    transport = "paramiko"


def no_shell(command: str) -> tuple[int, str, str]:
    raise AssertionError("one session is enough")


def here(command: str) -> tuple[int, str, str]:
    assert command == "date +%s%N"
    return 0, f"{time.time_ns()}\n", ""


def test_round_trips_within_one_session_hold_the_nodes_clock_between_them() -> None:
    trips = round_trips(Local(), no_shell)
    assert len(trips) == TRIPS - 1  # the first one opened the session
    for sent, node, received in trips:
        assert sent < node < received


def test_a_connection_without_sessions_gives_round_trips_too() -> None:
    assert len(round_trips(Other(), here)) == TRIPS


def test_a_node_without_nanoseconds_gives_none() -> None:
    def busybox(command: str) -> tuple[int, str, str]:
        return 0, "1735787045%N\n", ""

    unfit: Any = Other()
    assert round_trips(unfit, busybox) == []
