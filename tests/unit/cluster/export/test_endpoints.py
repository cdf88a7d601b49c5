"""MLCommons' endpoints format: by its viewer's own formulas the points are those of the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark import DISCLAIMER
from benchmark.cli import main
from benchmark.cluster.aggregate import gather
from benchmark.records import EngineInfo, Load, Sample
from tests.unit.building import HOST, RUN_ID, add_node, asked, closed_loop, failed, make_run, result_of, write_node
from tests.unit.cluster.submission.conftest import ANSWERS
from tests.unit.queues import LADDER, S, queue, sweeping, write_sweep

GPUS = 2
ENGINE = EngineInfo(name="simulated", replicas=GPUS, simulated=True)
SEEN = HOST.model_copy(update={"gpus": tuple(HOST.gpus[0].model_copy(update={"index": n}) for n in range(GPUS))})

ON_TWO: dict[str, Any] = {"engine": ENGINE, "environment": SEEN, "target_qps": 0.5 * GPUS}


def steps(service_s: float = 2) -> dict[int, list[Sample]]:
    return {users: queue(users, 6, [int(service_s * S)] * (users * 6)) for users in LADDER}


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """jw2 and jw3 measured all steps, each on two GPUs; jw4 none."""
    resolved = sweeping(benchmark_model="/models/Llama 3.1", benchmark_dtype="bfloat16")
    run_dir = make_run(tmp_path / RUN_ID, dict.fromkeys(("jw2", "jw3", "jw4"), resolved))
    for node, service_s in (("jw2", 2.0), ("jw3", 2.2)):
        write_sweep(run_dir, node, resolved, steps(service_s), **ON_TWO)
    return run_dir


def export(run_dir: Path, *words: str) -> Path:
    output = run_dir.parent / "out"
    assert main(["export", str(run_dir), "--format", "endpoints", "-o", str(output), *words]) == 0
    return output / "unverified" / RUN_ID / "results"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_each_node_is_a_system_with_its_points(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = export(swept)
    said = capsys.readouterr().out
    assert {path.name for path in results.iterdir()} == {"jw2", "jw3"}
    assert "points 10, nodes 2" in said
    assert "jw4: left out" in said
    assert "network cards" in said
    assert "it is not true of this one" in " ".join(said.split())
    for node, service_s in (("jw2", 2.0), ("jw3", 2.2)):
        for users in LADDER:
            directory = results / node / "Llama_3_1" / f"r{users * GPUS}"
            point, summary = read(directory / "point.yaml"), read(directory / "result_summary.json")
            assert point["concurrency"] == users * GPUS
            assert point["max_supported_concurrency"] == LADDER[-1] * GPUS
            assert (point["model_name"], point["model_precision"]) == ("Llama_3_1", "bfloat16")
            assert "link_to_model" not in point
            # The format's own formulas.
            answered, elapsed_s = summary["n_samples_completed"], summary["duration_ns"] / 1e9
            assert answered == users * 6
            assert summary["output_sequence_lengths"]["total"] == answered * 64
            assert answered / elapsed_s == pytest.approx(min(users, 6) / service_s, rel=0.12)
            per_user = 1e9 / summary["tpot"]["percentiles"]["90"]
            assert per_user == pytest.approx(63 / (0.9 * service_s))
            assert summary["tpot"]["total"] / answered == pytest.approx(1e9 / per_user)


def test_every_file_says_that_it_is_no_submission(swept: Path) -> None:
    results = export(swept)
    assert DISCLAIMER in (results.parent / "README.md").read_text()
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(LADDER) * 3
    assert all(DISCLAIMER in " ".join(path.read_text().split()) for path in files)
    thin = read(results / "jw2" / "Llama_3_1" / "r2" / "point.yaml")["model_notes"]
    assert "SIMULATED" in thin
    assert "6 answers are too few for P50 (11), P90 (64)" in thin


def test_a_system_has_what_was_seen_and_nothing_else(swept: Path) -> None:
    of_points = [read(path) for path in sorted(export(swept).glob("jw2/*/*/system_desc.json"))]
    assert of_points[0]["submitter_org_names"] == DISCLAIMER
    (node,) = of_points[0]["node_types"]
    assert node["host_processor_vcpu_count"] == HOST.cpu_count
    assert node["accelerator_info"] == [
        {
            "accelerator_model_name": "NVIDIA A30",
            "accelerators_per_node": 2,
            "accelerator_memory_capacity": "24 GiB",
        }
    ]
    # Neither seen nor answered: the driver neither.
    unseen = ("host_memory_configuration", "host_network_card_count", "filesystem", "driver", "cooling")
    assert not set(unseen) & set(node)
    assert not {"division", "system_availability_status"} & set(of_points[0])
    assert max(one.pop("tps_utilization") for one in of_points) == 1
    assert all(one == of_points[0] for one in of_points)


def test_what_nobody_sees_comes_from_system_yml(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = swept.parent / "system.yml"
    words = ["export", str(swept), "--format", "endpoints", "-o", str(swept.parent / "out"), "--system", str(system)]
    assert main(words) == 2
    assert "system.yml was written" in capsys.readouterr().err
    assert not (swept.parent / "out").exists()
    more = (
        "accelerator_memory_configuration: HBM2\naccelerator_interconnect: N/A\naccelerator_host_interconnect: PCIe\n"
        "filesystem: ext4\nendpoints_division: RDI\n"
    )
    system.write_text(ANSWERS + more)
    described = read(next(export(swept, "--system", str(system)).glob("jw2/*/r2/system_desc.json")))
    assert described["system_name"] == "A server (jw2)"
    assert (described["division"], described["system_availability_status"]) == ("RDI", "rdi")
    (node,) = described["node_types"]
    assert (node["filesystem"], node["host_network_card_count"]) == ("ext4", "1")
    assert "network cards" not in capsys.readouterr().out


def test_a_point_says_how_it_was_warmed_up(tmp_path: Path) -> None:
    resolved = sweeping(benchmark_model="meta-llama/Llama-3.1-8B-Instruct")
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": resolved})
    write_sweep(run_dir, "jw2", resolved, steps(), warmup=3, stages_s={"warm-up": 4.5}, **ON_TWO)
    point = read(export(run_dir) / "jw2" / "llama3_1-8b" / "r4" / "point.yaml")
    warmup = point["warmup"]
    assert warmup.pop("data_source")
    assert warmup == {"duration_s": 4.5, "requests_issued": 3, "requests_completed": 3, "concurrency": 1}
    assert point["link_to_model"].startswith("https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct/tree/")
    # The simulated engine counts no tokens of prompts.
    assert "input_token_average" not in point


def test_steps_of_a_node_that_broke_are_kept(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": sweeping()})
    few = {users: samples for users, samples in steps().items() if users <= 2}
    broken = {"status": "failed", "stage": "measuring", "error": "CUDA error"}
    write_sweep(run_dir, "jw2", sweeping(), few, ended="", **broken, **ON_TWO)
    assert not gather(run_dir).result.counted
    assert {path.name for path in export(run_dir).glob("jw2/*/*")} == {"r2", "r4"}


def test_one_load_is_one_point(tmp_path: Path) -> None:
    resolved = asked(3, profile={"engine": "simulated", "engine_options": {}, "fallback_engine": "", "limits": []})
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": resolved})
    samples = [*closed_loop([1800, 1900]), failed(2, 3700)]
    write_node(run_dir, result_of("jw2", resolved, samples, load=Load(concurrency=4), **ON_TWO), samples)
    (summary,) = export(run_dir).glob("jw2/*/r8/result_summary.json")
    content = json.loads(summary.read_text())
    counts = [content[f"n_samples_{name}"] for name in ("issued", "completed", "failed")]
    assert counts == [3, 2, 1]


def test_a_run_at_a_rate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": asked(20)})
    add_node(run_dir, "jw2", asked(20), [1800.0] * 20, load=Load(rate=2.0, share=0.5))
    assert main(["export", str(run_dir), "--format", "endpoints", "-o", str(tmp_path / "out")]) == 2
    assert "a fixed number of queries in flight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["endpoints"], "name a new one"),
        (["endpoints", "-o", "/tmp"], "exists already"),
        (["endpoints", "-o", "/nowhere", "--what", "samples"], "--what"),
        (["csv", "--system", "x"], "--system is only for --format endpoints"),
    ],
)
def test_what_cannot_be_is_refused(swept: Path, capsys: Any, words: list[str], said: str) -> None:
    assert main(["export", str(swept), "--format", *words]) == 2
    assert said in capsys.readouterr().err


def test_long_names_of_nodes_stay_apart(tmp_path: Path) -> None:
    nodes = [f"gpu-node-in-the-second-hall-{number}" for number in (1, 2)]
    run_dir = make_run(tmp_path / RUN_ID, dict.fromkeys(nodes, asked(20)))
    for node in nodes:
        add_node(run_dir, node, asked(20), [1800.0] * 20, load=Load(concurrency=1))
    assert gather(run_dir).result.counted == 2
    described = [read(path) for path in export(run_dir).glob("*/*/r1/system_desc.json")]
    assert {one["shortened_system_name"] for one in described} == {"node 1", "node 2"}
