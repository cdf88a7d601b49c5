import os
import subprocess
import threading
from pathlib import Path

import pytest

WATCH = Path(__file__).parents[3] / "roles/benchmark/files/watch.sh"


def test_an_end_that_comes_in_the_middle_of_a_look_is_told_by_the_next_one(tmp_path: Path) -> None:
    run = tmp_path / "run" / "jw2"
    run.mkdir(parents=True)
    os.mkfifo(run / "pid")

    def look() -> list[str]:
        words = ["sh", str(WATCH), str(run.parent), "jw2", "0", "exit_code", ""]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    def end() -> None:
        """The run ends, and its process with it, just when the script asks for the process."""
        with (run / "pid").open("w") as pid:
            (run / "exit_code").write_text("0\n")
            pid.write("1\n")

    threading.Thread(target=end, daemon=True).start()
    assert look() == ["running"]
    assert look() == ["0"]


@pytest.mark.parametrize(
    ("left", "state"),
    [
        ({"boot_id": Path("/proc/sys/kernel/random/boot_id").read_text()}, "vanished"),
        ({"boot_id": "11111111-2222-4333-8444-555555555555\n"}, "rebooted"),
        ({}, "vanished"),
        (None, "removed"),
    ],
)
def test_how_a_process_is_gone_that_left_no_exit_code(tmp_path: Path, left: dict[str, str] | None, state: str) -> None:
    run = tmp_path / "run" / "jw2"
    if left is not None:
        run.mkdir(parents=True)
        for name, text in {"pid": "1\n", **left}.items():
            (run / name).write_text(text)
    words = ["sh", str(WATCH), str(run.parent), "jw2", "0", "exit_code", "", "1"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == [state]
