"""A process whose reader is gone ends; one that is read goes on."""

import signal
import subprocess
import sys

WAITS = (
    "import sys, time; from benchmark.node.watch.abandoned import end_with_reader; end_with_reader(); "
    "print('ready', flush=True); sys.stdin.read(); print('read on', flush=True)"
)


def started() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_it_ends_with_its_reader() -> None:
    with started() as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGTERM


def test_it_goes_on_while_it_is_read() -> None:
    with started() as process:
        assert process.communicate("")[0] == "read on\n"
        assert process.returncode == 0
