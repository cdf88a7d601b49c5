"""roles/preflight/files/probe.sh, run on a node whose programs are given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmark.cluster.packages.environments import with_find
from benchmark.cluster.preflight import Probe

PROBE = Path(__file__).parents[3] / "roles/preflight/files/probe.sh"


def ask(
    tmp_path: Path,
    programs: dict[str, str],
    path: str | None = None,
    limit_s: int = 40,
    visible: str | None = None,
) -> Probe:
    """Return what the probe says on a node with these programs; its Python is one that starts at once.

    `visible`: CUDA_VISIBLE_DEVICES as the node's login sets it.
    """
    programs = {"python3": "echo 3.11.2", **programs}
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    for name, script in programs.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{place}:{path or os.environ['PATH']}", "PREFLIGHT_LIMIT_S": str(limit_s)}
    environment["PREFLIGHT_PCI"] = str(tmp_path / "pci")
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    words = ["python3", f"{tmp_path}/not/yet", "", str(tmp_path), "", "cuda"]
    done = subprocess.run(
        ["/bin/sh", "-c", with_find(PROBE.read_text()), "probe", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    return Probe.parse(done.stdout)
