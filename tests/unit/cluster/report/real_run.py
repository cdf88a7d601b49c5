"""A real run of several nodes on this machine: the package's own command, started together, one node slowed down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmark.files import write_record
from benchmark.resolve import resolve
from benchmark.rundir import GO, ORDER, READY, RunOrder, open_run
from benchmark.settings import ResolvedSettings
from tests.unit.node.led import put

NODES = ("gpu-01", "gpu-02", "gpu-03", "gpu-04")
SLOW = "gpu-03"
PATIENCE_S = 120
# The fault: on one node every token takes longer, which none of its settings tells.
FAULT = """
import benchmark.node.engines.simulated as simulated

load = simulated.Engine.load


def slower(self):
    told = load(self)
    self.timing = self.timing.model_copy(update={"tpot_ms": self.timing.tpot_ms * 1.4})
    return told


simulated.Engine.load = slower
"""


def asked(results: Path) -> ResolvedSettings:
    """Return the settings of every node: the self-test, long enough to have a shape."""
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_results_dir": str(results)})
    changes = {"samples": 80, "engine_options": {"ttft_ms": 10, "tpot_ms": 2}, "warmup": 1}
    return ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **changes}}
    )


def real_run(directory: Path) -> Path:
    """Run the nodes and return the run's directory."""
    resolved = asked(directory / "results")
    run_id, run_dir = open_run(dict.fromkeys(NODES, resolved), command="ansible-playbook playbooks/benchmark.yml")
    (directory / "fault").mkdir()
    (directory / "fault" / "sitecustomize.py").write_text(FAULT)
    checkout = str(Path(__file__).resolve().parents[4])
    running = {}
    for node in NODES:
        place = run_dir / "nodes" / node
        place.mkdir()
        order = RunOrder(run_id=run_id, node=node, resolved=resolved, wait_s=PATIENCE_S)
        write_record(place / ORDER, order)
        path = os.pathsep.join([*([str(directory / "fault")] if node == SLOW else []), checkout])
        running[node] = subprocess.Popen(
            [sys.executable, "-m", "benchmark", "run", "--order", str(place / ORDER)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not all((run_dir / "nodes" / node / READY).exists() for node in NODES):
            ended = {node: process for node, process in running.items() if process.poll() is not None}
            assert not ended, {node: process.communicate()[0] for node, process in ended.items()}
            assert time.monotonic() < deadline, "the nodes did not get ready"
            time.sleep(0.02)
        start_ns = time.time_ns() + 500_000_000
        for node in NODES:
            put(run_dir / "nodes" / node, GO, start_ns)
        for node, process in running.items():
            reported, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode in (0, 1), (node, reported)
    finally:
        for process in running.values():
            process.kill()
    for node in NODES:
        # What the controller leaves on the node.
        for name in (ORDER, READY, GO):
            (run_dir / "nodes" / node / name).unlink()
    return run_dir
