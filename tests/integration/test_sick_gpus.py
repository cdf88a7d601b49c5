"""Nodes with sick GPUs, by the real preflight over SSH: each has an nvidia-smi that says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests import nvidia_smi
from tests.integration.conftest import Playbooks, make_model_directory
from tests.integration.ssh_nodes import Cluster, loopback
from tests.nvidia_smi import eight

LOST = "Unable to determine the device handle for GPU3: 0000:04:00.0: Unknown Error"
RESET = {"gpu_recovery_action": "Reset"}
NODES = {
    "well": eight(),
    "sick": eight({3: RESET}),
    "left-out": eight({3: RESET}),
    "measured-all-the-same": eight({3: RESET}),
    "lost": eight(lost=[3]),
    "few": eight(lost=[3]),
    "narrow": eight({3: {"pcie.link.width.current": "4"}}),
    "old-driver": eight(),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "left-out": {"benchmark_environment": {"CUDA_VISIBLE_DEVICES": "0,-1,1"}},
    "measured-all-the-same": {"preflight_sick_gpus": "warn"},
    "few": {"preflight_gpus": 8},
}


def test_a_sick_gpu_fails_its_node_before_anything_is_done(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    cluster.directory.mkdir()
    make_model_directory(tmp_path / "model")
    (tmp_path / "cp").mkdir()
    hosts = {}
    for number, (name, gpus) in enumerate(NODES.items()):
        place = tmp_path / name
        place.mkdir()
        unknown = ("gpu_recovery_action",) if name == "old-driver" else ()
        nvidia_smi.write(place, gpus, unknown, [LOST] if name == "lost" else [])
        cluster.add(name, loopback(40 + number), f"SetEnv PATH={place}:{os.environ['PATH']}\n")
        hosts[name] = {**cluster.host(name), **SETTINGS.get(name, {})}
    playbooks = Playbooks(cluster, tmp_path, tmp_path / "venv", tmp_path / "cp")
    try:
        done = playbooks.run("preflight", inventory=playbooks.inventory(hosts, benchmark_device="cuda"))
        said = " ".join(done.output.split())
        wrong = playbooks.run("preflight", "-e", "preflight_gpu=8", inventory=playbooks.inventory(hosts))
    finally:
        cluster.stop()
    assert done.code == 2, done.output
    assert {name for name in NODES if done.recap(name)["failed"]} == {"sick", "lost", "few"}, done.output
    asks = "is not fit: the driver asks for a recovery action: Reset"
    assert said.count(f"GPU 3 (00000000:04:00.0) {asks}. Reset it or restart the node") == 2
    assert f"nvidia-smi lists 7 GPUs and says: {LOST}." in said
    assert "7 GPUs answer here, and preflight_gpus says 8" in said
    for warned in (
        f"left-out: GPU 3 (00000000:04:00.0), which this run does not use, {asks}.",
        "left-out: CUDA_VISIBLE_DEVICES is '0,-1,1': '-1' is negative, and so CUDA ignores the rest",
        f"measured-all-the-same: GPU 3 (00000000:04:00.0) {asks}.",
        "narrow: GPU 3 (00000000:04:00.0) has 4 of 16 PCIe lanes",
        "Not checked on old-driver, since nvidia-smi there does not know it: gpu_recovery_action.",
    ):
        assert warned in said, done.output
    # A name that nobody knows is refused before a node is asked.
    assert "preflight_gpu is not a setting, and nothing reads it: did you mean preflight_gpus" in wrong.output
    assert "TASK [preflight : Probe the nodes]" not in wrong.output
