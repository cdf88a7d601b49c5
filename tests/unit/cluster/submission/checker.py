"""A small reading of our own of the submission checker's rules (MLPerf Inference v6.1): what it complains of in a tree.

It knows nothing of the program's own modules, so that both cannot be wrong in the same way. The official checker is
fetched and run by hand: docs/mlperf.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ARTICLES = {"llama3.1-8b": 13368, "llama3.1-8b-edge": 5000}
CHARACTERS = {"llama3.1-8b": 8167644, "llama3.1-8b-edge": 3051113}
SCORES = {
    "llama3.1-8b": {"rouge1": 38.7792, "rouge2": 15.9075, "rougeL": 24.4957, "rougeLsum": 35.793},
    "llama3.1-8b-edge": {"rouge1": 39.06, "rouge2": 16.1147, "rougeL": 24.6375, "rougeLsum": 36.124},
}
SEEDS = (2085463073848966840, 2747215439041700203, 16159082839903944936)
FIELDS = [
    "division",
    "submitter",
    "status",
    "system_name",
    "number_of_nodes",
    "host_processor_model_name",
    "host_processors_per_node",
    "host_processor_core_count",
    "host_memory_capacity",
    "host_storage_capacity",
    "host_storage_type",
    "accelerators_per_node",
    "accelerator_model_name",
    "accelerator_memory_capacity",
    "framework",
    "operating_system",
    "system_type",
    "other_software_stack",
    "host_processor_frequency",
    "host_processor_caches",
    "host_memory_configuration",
    "host_processor_interconnect",
    "host_networking",
    "host_networking_topology",
    "accelerator_frequency",
    "accelerator_host_interconnect",
    "accelerator_interconnect",
    "accelerator_interconnect_topology",
    "accelerator_memory_configuration",
    "accelerator_on-chip_memories",
    "cooling",
    "hw_notes",
    "sw_notes",
    "host_network_card_count",
    "system_type_detail",
]
MAY_BE_EMPTY = [
    "system_type_detail",
    "host_processor_frequency",
    "host_processor_caches",
    "host_processor_interconnect",
    "accelerator_frequency",
    "accelerator_interconnect_topology",
    "accelerator_on-chip_memories",
    "hw_notes",
    "sw_notes",
]
MEASUREMENTS = [
    "input_data_types",
    "retraining",
    "starting_weights_filename",
    "weight_data_types",
    "weight_transformations",
]


def complaints(root: Path) -> list[str]:
    """Return what the rules find wrong under `root`, as short words."""
    found: list[str] = []
    for system in sorted(root.glob("*/*/results/*")):
        division, submitter = system.parts[-4], system.parts[-3]
        description = json.loads((system.parents[1] / "systems" / f"{system.name}.json").read_text())
        found += _system(description, division, submitter)
        if not (system.parents[1] / "src").is_dir():
            found.append("no src")
        for benchmark in sorted(system.iterdir()):
            names = {path.name for path in benchmark.iterdir()}
            if division == "closed":
                found += _scenarios(benchmark.name, names, description["system_type"])
            for scenario in sorted(benchmark.iterdir()):
                found += [f"{scenario.name}: {what}" for what in _scenario(scenario, benchmark.name, division)]
    return found


def _system(description: dict[str, Any], division: str, submitter: str) -> list[str]:
    found = [f"system has no {name}" for name in FIELDS if name not in description]
    found += [f"{name} is empty" for name in FIELDS if name not in MAY_BE_EMPTY and not description.get(name)]
    found += ["status"] if description["status"] not in ("available", "preview", "rdi") else []
    suites = ("datacenter", "edge", "datacenter,edge", "edge,datacenter")
    found += ["system_type"] if description["system_type"] not in suites else []
    given = (description["division"], description["submitter"])
    return found + ([] if given == (division, submitter) else ["division or submitter"])


def _scenarios(benchmark: str, names: set[str], system_type: str) -> list[str]:
    if benchmark.endswith("-edge"):
        absent = {"SingleStream", "Offline"} - names if "edge" in system_type else {"an edge system"}
        unknown = names - {"SingleStream", "Offline"}
    else:
        absent = {"Offline"} - names
        absent |= set() if names & {"Server", "Interactive"} else {"Server or Interactive"}
        unknown = names - {"Offline", "Server", "Interactive"}
    return [f"{benchmark} lacks {name}" for name in sorted(absent)] + [f"unknown {name}" for name in sorted(unknown)]


def _log(path: Path) -> dict[str, Any]:
    entries = [
        json.loads(line.removeprefix(":::MLLOG ")) for line in path.read_text().splitlines() if ":::MLLOG" in line
    ]
    return {"errors": sum(e["metadata"]["is_error"] for e in entries)} | {e["key"]: e["value"] for e in entries}


def _scenario(directory: Path, benchmark: str, division: str) -> list[str]:
    found: list[str] = []
    measurements = json.loads((directory / "measurements.json").read_text())
    found += [f"measurements has no {name}" for name in MEASUREMENTS if not measurements.get(name)]
    found += [f"no {name}" for name in ("user.conf", "README.md") if not (directory / name).stat().st_size]
    detail = directory / "performance" / "run_1" / "mlperf_log_detail.txt"
    found += _performance(_log(detail), benchmark, directory.name, division) if detail.is_file() else ["no performance"]
    if (directory / "accuracy" / "accuracy.txt").is_file():
        found += _accuracy(directory / "accuracy", benchmark, division)
    else:
        found.append("no accuracy")
    if division == "closed":
        verified = directory / "TEST06" / "verify_accuracy.txt"
        lines = verified.read_text().splitlines() if verified.is_file() else []
        first = {"First token check pass: True", "First token check pass: Skipped"}
        if not (first & set(lines) and {"EOS check pass: True", "Sample length check pass: True"} <= set(lines)):
            found.append("TEST06")
    return found


def _performance(log: dict[str, Any], benchmark: str, name: str, division: str) -> list[str]:
    articles = ARTICLES[benchmark]
    wrong = {
        "scenario": log["effective_scenario"] != ("Server" if name == "Interactive" else name),
        "sample count": log["effective_performance_sample_count"] < articles,
        "seeds": tuple(log[f"effective_{seed}_rng_seed"] for seed in ("qsl", "sample_index", "schedule")) != SEEDS,
        "early stopping": name != "Offline" and not log.get("early_stopping_met"),
        "samples per query": name == "Offline"
        and division == "closed"
        and log["effective_samples_per_query"] < articles,
        "duration": log["effective_min_duration_ms"] < 600_000,
        "token latencies": not log["requested_use_token_latencies"],
        "errors": log["errors"] > 0,
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


def _accuracy(directory: Path, benchmark: str, division: str) -> list[str]:
    log, text = _log(directory / "mlperf_log_detail.txt"), (directory / "accuracy.txt").read_text()
    found = ["accuracy errors"] if log["errors"] else []
    found += ["hash"] if not re.search(r"^hash=[0-9a-f]{64}$", text, re.M) else []
    found += ["not truncated"] if (directory / "mlperf_log_accuracy.json").stat().st_size > 10 * 1024 else []
    answered = log.get("effective_accuracy_sample_count", log["qsl_reported_total_count"])
    found += ["articles"] if answered != ARTICLES[benchmark] else []
    if division == "closed":
        for score, target in SCORES[benchmark].items():
            reported = re.search(rf"'{score}':\s+'?([\d.]+)'?", text)
            found += [score] if reported is None or float(reported[1]) < 0.99 * target else []
        length = re.search(r"'gen_len':\s([\d.]+)", text)
        target = CHARACTERS[benchmark]
        found += ["gen_len"] if length is None or not 0.9 * target <= float(length[1]) <= 1.1 * target else []
    return found
