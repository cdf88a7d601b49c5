"""Measure what orchestrating costs: wall time minus the time nodes only sleep, over real sshd on loopback addresses.

The controller's processor time per node comes first: on a real cluster nodes have their own cores, here they share the
controller's. The job is compared with the same job with one more node where SSH does not answer; with only one login
per node, the minimum that any way needs; and with the naive design: one thread per host, `ssh host python -m benchmark
run`, then `find` and `scp`. The naive design runs the same job, but has no preflight, no agreed start, no progress and
no summary. Everything is provisioned before; the ways alternate in each round. The controller's memory is measured in a
separate round.

    python3 -m benchmarks.orchestration [--nodes 2 20 100 200] [--rounds 1] [--sleep 5]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.farm import end_masters, environment, farm, memory_mib
from tests.integration.ssh_nodes import CHECKOUT, PORT, Cluster, SshNode

# The environment needs no torch: the simulated engine sleeps.
REQUIREMENTS = "tests/data/requirements-light.txt"
# Exit code of ansible-playbook if some nodes failed.
SOME_FAILED = 2
# A further node where SSH does not answer.
DEAD = {"dead": {"ansible_host": "127.1.250.1"}}
OURS, ONE_DEAD, LOGINS, NAIVE = WAYS = (
    "benchmark.yml",
    "with one dead node",
    "logins only",
    "naive: ssh, find, scp",
)
HEADER = """\
| nodes | controller CPU per node: {} | {} | {} | {} | wall: {} | {} | {} | {} | skew, ms | memory |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |""".format(*WAYS, *WAYS)


def profile(sleep_s: float) -> dict[str, Any]:
    """Return a profile with one query, during which the engine sleeps for `sleep_s`.

    It sleeps within the measuring window, so that all nodes have begun before any ends, as in a real measurement.
    """
    return {
        "name": "sleep",
        "version": 1,
        "kind": "self-test",
        "scenario": "closed_loop",
        "engine": "simulated",
        "engine_options": {"ttft_ms": sleep_s * 1000, "tpot_ms": 0},
        "dataset": "curated",
        "samples": 1,
        "warmup": 0,
        "generation": {"max_new_tokens": 2, "min_new_tokens": 2},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
    }


@dataclass(frozen=True)
class Cost:
    """Cost of one run. `wall_s` excludes the sleep; `cpu_s` is the controller's, with ssh but without ssh's masters."""

    wall_s: float
    cpu_s: float


class Ours:
    """The playbooks of this checkout."""

    def __init__(self, cluster: Cluster, place: Path, sleep_s: float) -> None:
        self.results = place / "results"
        self.control_path = place / "cp"
        self.control_path.mkdir()
        (place / "sleep.yaml").write_text(yaml.safe_dump(profile(sleep_s)), encoding="utf-8")
        model = place / "model"
        model.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
            (model / name).write_text("{}", encoding="utf-8")
        self.job = {
            "benchmark_profile": str(place / "sleep.yaml"),
            "benchmark_device": "cpu",
            "benchmark_shared_machine": True,
            "benchmark_model": str(model),
        }
        self.venv = place / "venv"
        variables = {
            **self.job,
            # With so many nodes on two cores the verdict does not matter.
            "benchmark_fail_on_invalid": False,
            "benchmark_results_dir": str(self.results),
            "benchmark_work_dir": f"{place}/nodes/{{{{ inventory_hostname }}}}",
            "python_env_dir": str(self.venv),
            "python_env_python": sys.executable,
            "python_env_requirements": REQUIREMENTS,
            "hf_cache_source": "none",
        }
        self.inventory = cluster.inventory(place / "hosts.yml", variables)
        alive = {name: cluster.host(name) for name in cluster.nodes}
        self.one_dead = cluster.inventory(place / "one_dead.yml", variables, {**alive, **DEAD})

    def play(
        self,
        name: str,
        inventory: Path | None = None,
        watch: Callable[[int], None] | None = None,
        expected: int = 0,
    ) -> None:
        """Run a playbook; show its output if its exit code is unexpected. `watch` is called with its pid meanwhile."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with tempfile.TemporaryFile("w+") as output:
            playing = subprocess.Popen(
                ["ansible-playbook", f"playbooks/{name}.yml", "-i", str(inventory or self.inventory)],
                cwd=CHECKOUT,
                env={**environment(self.control_path), "PATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while watch is not None and playing.poll() is None:
                watch(playing.pid)
            if playing.wait() != expected:
                output.seek(0)
                raise SystemExit(output.read())

    def forget(self) -> None:
        """Close open connections before the next run."""
        end_masters(self.control_path)

    def skew(self) -> tuple[float, float]:
        """Return the newest run's skew and its uncertainty, in milliseconds; every node must count."""
        result = json.loads((self.results / "latest" / "aggregated_datacenter_results.json").read_text())
        if result["counted"] != result["asked"]:
            raise SystemExit(f"only {result['counted']} of {result['asked']} nodes count: {result['nodes']}")
        overlap = result["overlap"]
        return overlap["skew_ms"], overlap["uncertainty_ms"]


def _options(cluster: Cluster) -> list[str]:
    return ["-F", "none", "-i", str(cluster.key), "-o", f"UserKnownHostsFile={cluster.known_hosts}"]


def logins(cluster: Cluster) -> None:
    """Log in to each host once, without doing anything there."""

    def one(node: SshNode) -> None:
        subprocess.run(["ssh", *_options(cluster), "-p", str(PORT), node.address, ":"], check=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, cluster.nodes.values()))


def naive(ours: Ours, cluster: Cluster, place: Path) -> None:
    """Run one thread per host: ssh, find, scp."""
    options = _options(cluster)
    settings = [word for name, value in ours.job.items() for word in ("--set", f"{name}={value}")]
    # The benchmark's own code, as the last provisioning installed it.
    python = max(ours.venv.glob("code/*/bin/python"), key=lambda path: path.lstat().st_mtime)
    run = shlex.join([str(python), "-m", "benchmark", "run", *settings])

    def one(name: str) -> None:
        address, far = cluster.nodes[name].address, place / "naive" / name
        ssh = ["ssh", *options, "-p", str(PORT), address]
        work = f"rm -rf {far} && mkdir -p {far} && cd {far} && NODE_NAME={name} {run}"
        subprocess.run([*ssh, work], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = subprocess.run(
            [*ssh, f"find {far} -name 'mlperf_datacenter_*.json' | sort | tail -n 1"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        target = str(place / f"{name}.json")
        subprocess.run(["scp", "-q", *options, "-P", str(PORT), f"{address}:{found}", target], check=True)

    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        list(pool.map(one, cluster.nodes))


def cost(work: Callable[[], None], sleep_s: float) -> Cost:
    """Run `work` and return its cost."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall_s - sleep_s, cpu_s)


def peak_memory_mib(ours: Ours, every_s: float = 1.0) -> float:
    """Return the peak memory of a whole job on the controller in MiB, sampled."""
    most = 0.0

    def look(pid: int) -> None:
        nonlocal most
        most = max(most, memory_mib(pid))
        time.sleep(every_s)

    ours.forget()
    ours.play("benchmark", watch=look)
    return most


def measure(count: int, rounds: int, sleep_s: float, memory: bool) -> str:
    """Return one line of the table for `count` nodes."""
    # Short, because the path of a socket is limited.
    place = Path(tempfile.mkdtemp(prefix="orch"))
    try:
        with farm(place / "cluster", count) as cluster:
            ours = Ours(cluster, place, sleep_s)
            ours.play("provision")
            work: dict[str, Callable[[], None]] = {
                OURS: lambda: ours.play("benchmark"),
                ONE_DEAD: lambda: ours.play("benchmark", ours.one_dead, expected=SOME_FAILED),
                LOGINS: lambda: logins(cluster),
                NAIVE: lambda: naive(ours, cluster, place),
            }
            costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
            skews = []
            for number in range(rounds):
                for way in WAYS:
                    ours.forget()
                    costs[way].append(cost(work[way], 0 if way == LOGINS else sleep_s))
                    if way == OURS:
                        skews.append(ours.skew())
                    shown = costs[way][-1]
                    print(f"{count} nodes, round {number + 1}: {way}: {shown}", file=sys.stderr)
            peak = f"{peak_memory_mib(ours):.0f} MiB" if memory else ""
            ours.forget()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    skew = ", ".join(f"{value:.2f} ± {unsure:.2f}" for value, unsure in skews)
    shares = [_median([one.cpu_s / count for one in costs[way]], 3) for way in WAYS]
    walls = [_median([one.wall_s for one in costs[way]], 1) for way in WAYS]
    return f"| {' | '.join([str(count), *shares, *walls, skew, peak])} |"


def _median(values: list[float], digits: int) -> str:
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.{digits}f} s{spread}"


def main() -> None:
    """Measure each number of nodes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 20, 100, 200])
    parser.add_argument("--rounds", type=int, default=1, help="rounds; with fewer than 100 nodes, three times as many")
    parser.add_argument("--sleep", type=float, default=5)
    parser.add_argument("--no-memory", action="store_true", help="leave out the round that measures memory")
    arguments = parser.parse_args()
    print(f"wall time minus {arguments.sleep:g} s of sleep; {os.cpu_count()} CPUs for the controller and all nodes")
    print(HEADER, flush=True)
    for count in arguments.nodes:
        rounds = arguments.rounds * (3 if count < 100 else 1)
        print(measure(count, rounds, arguments.sleep, not arguments.no_memory), flush=True)


if __name__ == "__main__":
    main()
