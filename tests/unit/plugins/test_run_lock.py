"""A worker notices that its ansible-playbook is gone: in a process that is forked by one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "plugins" / "shared"
WORKER = f"""
import asyncio, os, sys, time
sys.path.insert(0, {str(SHARED)!r})
import checkout
from pathlib import Path
from node_action import NodeFailure
from run_lock import lock_node_dir, require_parent, until_parent_is_gone
place = Path(sys.argv[1])
if os.fork():
    time.sleep(600)
require_parent()
with lock_node_dir(place):
    (place / "pid").write_text(str(os.getpid()))
    watching = asyncio.wait_for(until_parent_is_gone(), 60)
    print("at work", flush=True)
    asyncio.run(watching)
try:
    require_parent()
except NodeFailure as failure:
    print(failure, flush=True)
"""


def test_a_worker_stops_where_its_controller_is_gone(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout
        assert controller.stdout.readline() == "at work\n"
        os.kill(controller.pid, signal.SIGKILL)
        # The worker has the other end of the pipe too: this ends when it does.
        assert controller.stdout.read() == "The ansible-playbook that this worker belongs to is gone.\n"
