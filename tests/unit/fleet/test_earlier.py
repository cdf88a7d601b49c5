"""What an earlier attempt left on a node, as earlier.sh tells it: one that will wait for ever is not adopted."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmark.fleet.programs import program


@pytest.mark.parametrize(
    ("repeats", "waits", "there", "state"),
    [
        (1, True, ["go"], "running"),
        (1, True, [], "waits"),
        (3, True, ["go", "repeat2_go", "repeat3_go"], "running"),
        (3, True, ["go", "repeat2_go"], "waits"),
        (3, True, ["go", "repeat2_ready"], "waits"),
        # A sweep that ended before its last step.
        (3, True, ["go", "repeat2_ready=over"], "running"),
        (3, False, [], "running"),
    ],
)
def test_a_run_that_will_wait_is_not_taken_for_one_that_measures(
    tmp_path: Path, repeats: int, waits: bool, there: list[str], state: str
) -> None:
    run = tmp_path / "run" / "jw2"
    run.mkdir(parents=True)
    wait_s = 1080 if waits else "null"
    (run / "order.json").write_text(f'{{\n  "attempt": 1,\n  "measurements": {repeats},\n  "wait_s": {wait_s}\n}}\n')
    for name, _, content in (word.partition("=") for word in there):
        (run / name).write_text(content)
    # Only a process in the run's directory is the run.
    with subprocess.Popen(["cat"], cwd=run, stdin=subprocess.PIPE) as process:
        (run / "pid").write_text(f"{process.pid}\n")
        reported = subprocess.run(
            ["sh", "-c", program("earlier"), "earlier", str(run.parent), "jw2", ""],
            env=os.environ,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        process.communicate()
    assert reported.split() == [state, "1"]
