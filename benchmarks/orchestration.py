"""What orchestrating costs: wall time minus the time that the nodes only sleep, over real sshd on loopback addresses.

Beside it the naive design that it replaces: one thread per host, `ssh host command`, then `find` and `scp`. Everything
is provisioned before; each way runs in turn within each round.

    python3 benchmarks/orchestration.py [--nodes 2 20] [--rounds 3] [--sleep 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml

from tests.integration.ssh_nodes import CHECKOUT, PORT, Cluster

# The environment needs no torch: the simulated engine sleeps.
REQUIREMENTS = "tests/data/requirements-light.txt"


def profile(sleep_s: float) -> dict[str, Any]:
    """Return a profile whose engine sleeps while loading and answers one query at once."""
    return {
        "name": "sleep",
        "version": 1,
        "kind": "self-test",
        "scenario": "closed_loop",
        "engine": "simulated",
        "engine_options": {"load_s": sleep_s, "ttft_ms": 1, "tpot_ms": 0},
        "dataset": "curated",
        "samples": 1,
        "warmup": 0,
        "generation": {"max_new_tokens": 2, "min_new_tokens": 2},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
    }


class Ours:
    """The playbooks of this checkout."""

    def __init__(self, cluster: Cluster, place: Path, sleep_s: float) -> None:
        (place / "sleep.yaml").write_text(yaml.safe_dump(profile(sleep_s)), encoding="utf-8")
        model = place / "model"
        model.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
            (model / name).write_text("{}", encoding="utf-8")
        self.inventory = cluster.inventory(
            place / "hosts.yml",
            {
                "benchmark_profile": str(place / "sleep.yaml"),
                "benchmark_device": "cpu",
                "benchmark_model": str(model),
                # Windows of a millisecond do not overlap: the verdict is not what this is about.
                "benchmark_fail_on_invalid": False,
                "benchmark_results_dir": str(place / "results"),
                "benchmark_work_dir": f"{place}/nodes/{{{{ inventory_hostname }}}}",
                "python_env_dir": str(place / "venv"),
                "python_env_python": sys.executable,
                "python_env_requirements": REQUIREMENTS,
                "hf_cache_source": "none",
            },
        )

    def play(self, name: str) -> None:
        """Run a playbook; its output is shown where it fails."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["ansible-playbook", f"playbooks/{name}.yml", "-i", str(self.inventory)],
            cwd=CHECKOUT,
            env={**os.environ, "PATH": path, "ANSIBLE_FORKS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)


def naive(cluster: Cluster, place: Path, sleep_s: float) -> None:
    """Run one thread per host: ssh, find, scp."""
    options = ["-F", "none", "-i", str(cluster.key), "-o", f"UserKnownHostsFile={cluster.known_hosts}"]

    def one(name: str) -> None:
        address, far = cluster.nodes[name].address, place / "naive" / name
        ssh = ["ssh", *options, "-p", str(PORT), address]
        work = f"mkdir -p {far} && sleep {sleep_s} && echo '{{}}' > {far}/result_$(date +%s).json"
        subprocess.run([*ssh, work], check=True)
        found = subprocess.run(
            [*ssh, f"find {far} -name 'result_*.json' | sort | tail -n 1"], check=True, capture_output=True, text=True
        ).stdout.strip()
        target = str(place / f"{name}.json")
        subprocess.run(["scp", "-q", *options, "-P", str(PORT), f"{address}:{found}", target], check=True)

    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        list(pool.map(one, cluster.nodes))


def cost(work: Callable[[], None], sleep_s: float) -> float:
    """Return the wall time of `work` beyond the sleep, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began - sleep_s


def measure(count: int, rounds: int, sleep_s: float) -> None:
    """Print one line of the table for `count` nodes."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        cluster = Cluster(place / "cluster")
        cluster.directory.mkdir()
        try:
            for index in range(count):
                cluster.add(f"node{index + 1:03d}", f"127.0.1.{index + 1}")
            ours = Ours(cluster, place, sleep_s)
            ours.play("provision")
            ways: dict[str, Callable[[], None]] = {
                "playbook": lambda: ours.play("benchmark"),
                "naive": lambda: naive(cluster, place, sleep_s),
            }
            costs: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, work in ways.items():
                    costs[name].append(cost(work, sleep_s))
        finally:
            cluster.stop()
    cells = [f"{statistics.median(c):5.1f} s ({min(c):.1f} to {max(c):.1f})" for c in costs.values()]
    print(f"| {count:5d} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure every number of nodes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sleep", type=float, default=5)
    arguments = parser.parse_args()
    print(f"wall time minus {arguments.sleep:g} s of sleep, median of {arguments.rounds} (spread)")
    print("| nodes | benchmark.yml | ssh, find, scp in threads |\n| ---: | --- | --- |")
    for count in arguments.nodes:
        measure(count, arguments.rounds, arguments.sleep)


if __name__ == "__main__":
    main()
