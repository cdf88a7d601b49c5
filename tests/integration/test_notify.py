"""`benchmark_notify` at the end of a real playbook: nobody has to wait for it, and it changes no exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import yaml

from tests.integration.conftest import BIN
from tests.integration.ssh_nodes import CHECKOUT
from tests.processes import assert_ended


def test_ctrl_c_ends_a_hook_that_hangs_and_nothing_else(tmp_path: Path) -> None:
    """Of a run that is refused: no node is needed for that."""
    began = tmp_path / "began"
    hosts = {"here": {"ansible_connection": "local"}}
    given = {
        "benchmark_modell": "x",
        "benchmark_notify": f"sh -c 'echo $$ > {began}.part; mv {began}.part {began}; sleep 300'",
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"gpu_nodes": {"hosts": hosts, "vars": given}}))
    process = subprocess.Popen(
        ["ansible-playbook", "playbooks/benchmark.yml", "-i", str(tmp_path / "hosts.yml")],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not began.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "benchmark_notify: ended by Ctrl-C. The run is not affected." in " ".join(output.split())
    assert_ended(int(began.read_text()))
