"""Run playbooks/benchmark.yml on nodes that are all this machine, each with its own GPUs; nothing is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.cluster.results.read_columns import read_columns
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.node.serving.provisioned import HOST
from benchmark.profiles import load_profile
from benchmark.records import DRIVER, ClusterResult, NodeResult
from benchmark.rundir import NODE_RESULTS, NODES, REPORT_FILE, RESULT_FILE, SUMMARY_FILE
from benchmarks.against_vllm import figures
from benchmarks.apart import Row

ROOT = Path(__file__).resolve().parents[1]
# Seconds to stop the nodes and write the summary; seconds that a playbook takes besides its nodes.
STOP_S, AROUND_S = 60, 60
# With each prompt issued equally often, as in MLPerf, a load has a multiple of this number of queries.
PROMPTS = 512
# Workload B as a profile's distribution: prompts as long as CNN/DailyMail's articles.
LENGTHS = {"mean": 781, "stddev": 388, "least": 60, "most": 2500}
ANSWER = 128


@dataclass(frozen=True)
class Ran:
    """A playbook's exit code, its first failure or last output, and the directory of its run."""

    code: int
    words: str
    directory: Path

    def result(self, node: str) -> NodeResult:
        """Return the result of a node or of the driver. Raises InputError if there is none."""
        found = list(self._place(node).glob(NODE_RESULTS))
        if not found:
            raise InputError(f"The playbook exited with code {self.code} without a result of {node}: {self.words}")
        return read_record(found[0], NodeResult)

    def row(self, node: str) -> Row:
        """Return a row's figures, from the samples of a node or of the driver, with the run's own verdict."""
        result = self.result(node)
        verdict = result.verdict
        if result.status != "complete" or verdict is None:
            return {"valid": False, "note": f"{result.status}: {result.error}"}
        row = figures(read_columns(self._place(node) / "samples.jsonl"))
        return {**row, "valid": verdict.valid, "note": " ".join(verdict.reasons)[:300]}

    def _place(self, node: str) -> Path:
        return self.directory / (node if node == DRIVER else f"{NODES}/{node}")

    @property
    def cluster(self) -> ClusterResult:
        """The summary of the whole run. Raises InputError if there is none."""
        return read_record(self.directory / RESULT_FILE, ClusterResult)


@dataclass(frozen=True)
class Playbook:
    """Settings that all runs share."""

    place: Path
    """Directory of their files."""
    model: str
    """Directory of the model; empty: the profiles need none."""
    device: str
    dtype: str
    limit_s: int
    """Seconds for a node to get ready, and again for it to measure."""
    keep: Path | None = None
    """Directory to which each run's summary, report and logs are copied."""

    def run(self, name: str, nodes: Mapping[str, Mapping[str, Any]], **settings: Any) -> Ran:
        """Measure on these nodes: `gpus` are entries of CUDA_VISIBLE_DEVICES, their other keys settings."""
        results = self.place / name
        hosts = {node: self._host(node, **own) for node, own in nodes.items()}
        variables = {**self._settings(), "benchmark_results_dir": str(results), **settings}
        inventory = self.place / f"{name}.yml"
        inventory.write_text(yaml.safe_dump({"gpu_nodes": {"hosts": hosts, "vars": variables}}), encoding="utf-8")
        output = self.place / f"{name}.txt"
        with output.open("wb") as file:
            code = self._play(inventory, file)
        said = " ".join(output.read_text(encoding="utf-8", errors="replace").split())
        ran = Ran(code, said[said.find("fatal:") :][:600] if "fatal:" in said else said[-600:], results / "latest")
        if self.keep:
            logs = ran.directory.glob(f"{NODES}/*/*.log")
            self._keep(name, [output, ran.directory / SUMMARY_FILE, ran.directory / REPORT_FILE, *logs])
        return ran

    def _keep(self, name: str, files: Sequence[Path]) -> None:
        target = (self.keep or self.place) / name
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.is_file():
                of = f"{file.parent.name}-" if file.suffix == ".log" else ""
                shutil.copyfile(file, target / f"{of}{file.name}")

    def _play(self, inventory: Path, output: Any) -> int:
        """Run the playbook; if it takes too long, interrupt it, so that it stops its nodes."""
        command = [sys.executable, "-m", "ansible", "playbook", "playbooks/benchmark.yml", "-i", str(inventory)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        ) as process:
            try:
                return process.wait(self.limit_s + AROUND_S)
            except BaseException as error:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return process.wait()

    def _host(self, node: str, gpus: Sequence[str], **own: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {"benchmark_environment": {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}}
        if self.device == "cpu":
            chosen = {"benchmark_replicas": len(gpus)}
        return {"benchmark_work_dir": str(self.place / "nodes" / node), **chosen, **own}

    def _settings(self) -> dict[str, Any]:
        return {
            "ansible_connection": "local",
            "ansible_host": HOST,
            **({"benchmark_model": self.model} if self.model else {}),
            "benchmark_device": self.device,
            "benchmark_dtype": self.dtype,
            "benchmark_probes": "off",
            "benchmark_timeout_s": self.limit_s,
            "benchmark_sync_timeout_s": self.limit_s,
            "benchmark_fail_on_invalid": False,
            # Nodes on separate GPUs of one machine are real nodes; on its CPUs they are only for testing.
            "benchmark_shared_machine": self.device == "cpu",
            "hf_cache_source": "none",
            "hf_cache_dir": str(self.place / "huggingface"),
            "python_env_manage": False,
            "python_env_dir": str(self._environment()),
            "python_env_code_dir": str(self.place / "code"),
        }

    def _environment(self) -> Path:
        """Return a directory whose bin/python3 runs this Python, wherever its own prefix is."""
        program = self.place / "environment" / "bin" / "python3"
        if not program.exists():
            program.parent.mkdir(parents=True)
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
            program.chmod(0o755)
        return program.parents[1]


def write_profile(place: Path, name: str, load: dict[str, Any], prompts: int, shrink: int = 1) -> str:
    """Write an `mlperf-` profile with the prompts of workload B and with `load`; return its path.

    `load`: LoadGen's options of the scenario. `shrink`: divides the lengths of prompts and answers.
    """
    base = load_profile(name)
    lengths = {key: max(1, tokens // shrink) for key, tokens in LENGTHS.items()}
    content = {
        "name": f"{name.removeprefix('mlperf-')}-synthetic",
        "version": 1,
        "scenario": "loadgen",
        "scenario_options": {"scenario": base.scenario_options["scenario"], "model": "llama3_1-8b", **load},
        "engine": base.engine,
        "engine_options": base.engine_options,
        "dataset": "synthetic",
        "dataset_options": {"input_tokens": {"distribution": "lognormal", **lengths}, "prompts": prompts},
        "warmup": base.warmup,
        "generation": {"max_new_tokens": ANSWER // shrink, "min_new_tokens": ANSWER // shrink, "temperature": 0},
        "limits": [limit.model_dump(exclude_none=True) for limit in base.limits],
    }
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def write_without_limits(place: Path, name: str, metrics: Collection[str]) -> str:
    """Write a profile without the limits of the given metrics; return its path."""
    content = load_profile(name).model_dump(mode="json", exclude_defaults=True)
    content["limits"] = [limit for limit in content["limits"] if limit["metric"] not in metrics]
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**content, "name": f"{name}-unlimited"}), encoding="utf-8")
    return str(path)
