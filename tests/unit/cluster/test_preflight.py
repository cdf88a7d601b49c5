import dataclasses
import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.cluster.gpu_health import Wanted
from benchmark.cluster.packages.environments import with_find
from benchmark.cluster.preflight import EngineNeeds, Needs, Probe, gpus, problems, warnings
from benchmark.provisioned import ENGINES

PROBE = Path(__file__).parents[3] / "roles/preflight/files/probe.sh"

NEEDS = Needs(device="cuda", python="python3", env_dir="~/env", env_gb=10, cache_dir="~/hf", weights_gb=20)
FIT = {
    "python": ["3.12.3"],
    "venv": ["yes"],
    "env_disk": ["/dev/sda1 99999999"],
    "cache_disk": ["/dev/sdb1 99999999"],
    "gpu_status": ["0"],
    "gpu": ["0, 00000000:3B:00.0, NVIDIA A30, 24576, 550.54.15"],
}


def probe(**changes: list[str] | None) -> Probe:
    lines = {**FIT, **changes}
    return Probe.parse("".join(f"{k}\t{v}\n" for k, values in lines.items() for v in values or []))


def test_a_fit_node_has_no_problem() -> None:
    assert problems(probe(), NEEDS) == []
    assert gpus(probe()) == [{"name": "NVIDIA A30", "memory_mib": "24576", "driver": "550.54.15"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"python": None}, "There is no Python: python3 does not start"),
        ({"python": ["3.9.2"]}, "python3 is Python 3.9.2; 3.10 or newer is needed"),
        ({"venv": None}, "install its venv package"),
        ({"env_disk": ["/dev/sda1 1000000"]}, "/dev/sda1 has 1.0 GB free, 10.0 GB are needed for the environment"),
        ({"cache_disk": ["/dev/sdb1 1000000"]}, "20.0 GB are needed for the weights in ~/hf"),
        ({"cache_disk": [""]}, "is unknown: df failed"),
        ({"cache_unwritable": ["/data"]}, "/data is not writable"),
        ({"env_unwritable": ["/opt"]}, "/opt is not writable"),
        ({"missing_program": ["timeout", "tar"]}, "Not installed: timeout, tar"),
        (
            {"gpu_status": ["127"], "gpu": ["nvidia-smi: not found"]},
            "No GPU is visible: there is no nvidia-smi on its PATH",
        ),
        ({"gpu": ["No devices were found"]}, "No GPU is visible"),
    ],
)
def test_each_problem_is_a_sentence(changes: dict[str, list[str] | None], said: str) -> None:
    (found,) = problems(probe(**changes), NEEDS)
    assert said in found
    assert found.endswith(".")


def test_a_model_that_nothing_brings_has_to_be_there() -> None:
    needs = dataclasses.replace(NEEDS, absent_model="org/small", weights_gb=0)
    (found,) = problems(probe(), needs)
    assert found.startswith("org/small is not in ~/hf on the node, and hf_cache_source is none: set it to hub")
    assert problems(probe(model_present=["yes"]), needs) == []


def test_the_model_s_lacks_stand_beside_the_others() -> None:
    assert problems(probe(model_lacks=["No config.", "No weights."], venv=None), NEEDS)[1:] == [
        "No config.",
        "No weights.",
    ]


def test_what_is_there_already_need_not_be_writable() -> None:
    there = {"env_present": ["yes"], "env_unwritable": ["/opt/env"]}
    assert problems(probe(**there, model_present=["yes"], cache_unwritable=["/data"]), NEEDS) == []


def test_one_disk_has_to_hold_both() -> None:
    shared = ["/dev/sda1 24000000"]  # 24.6 GB: enough for either
    (found,) = problems(probe(env_disk=shared, cache_disk=shared), NEEDS)
    assert "30.0 GB are needed for the environment in ~/env and the weights in ~/hf" in found


def test_an_existing_python_that_hangs_has_its_own_setting() -> None:
    needs = replace(NEEDS, existing="/opt/conda")
    (found,) = problems(probe(hung=["env /opt/conda/bin/python3"]), needs)
    assert found.endswith("hangs there: try it on the node, or set python_env_dir to another environment.")


@pytest.mark.parametrize(
    ("hung", "said"),
    [
        ("gpu nvidia-smi", "but nvidia-smi hangs there: the NVIDIA driver or a GPU hangs"),
        (
            "gpu a look at /sys/bus/pci/devices",
            "but a look at /sys/bus/pci/devices hangs there: the NVIDIA driver",
        ),
        ("cache df -Pk /data", "but df -Pk /data hangs there: a disk does not answer there"),
        ("env a look at /home/me", "but a look at /home/me hangs there: a disk"),
        ("env python3", "but python3 hangs there: try it on the node, or set python_env_python"),
    ],
)
def test_what_hung_is_named_and_hides_nothing_else(hung: str, said: str) -> None:
    part = hung.split()[0]
    keys = {"gpu": ("gpu", "gpu_status"), "cache": ("cache_disk",), "env": ("python", "venv", "env_disk")}[part]
    lacking: dict[str, list[str] | None] = dict.fromkeys(keys)
    (found,) = problems(probe(hung=[hung], **lacking), NEEDS)
    assert said in found
    assert "Not reachable" not in found
    assert len(problems(probe(hung=[hung], missing_program=["tar"], **lacking), NEEDS)) == 2


def test_whoever_chose_gpus_is_warned_of_the_others() -> None:
    lost = ["Unable to determine the device handle for GPU0000:3C:00.0: GPU is lost."]
    reported = probe(gpu=[*FIT["gpu"], *lost])
    assert len(problems(reported, NEEDS)) == 1
    chosen = Needs(**{**vars(NEEDS), "gpus": Wanted("0")})
    assert problems(reported, chosen) == []
    assert "GPU is lost" in warnings(reported, chosen)[0]


def test_what_is_there_needs_no_room() -> None:
    full = ["/dev/sda1 10"]
    there = probe(env_disk=full, cache_disk=full, env_present=["yes"], model_present=["yes"])
    assert problems(there, NEEDS) == []


def test_all_problems_are_reported_at_once() -> None:
    found = problems(probe(python=["3.8.1"], cache_disk=["/dev/sdb1 1"], gpu_status=["9"]), NEEDS)
    assert len(found) == 3


VLLM = Needs(**{**vars(NEEDS), "engine": EngineNeeds(ENGINES["vllm"], "python3", "~/vllm", 20, locked=True)})
VLLM_FIT = {"engine_python": ["3.12.3"], "engine_venv": ["yes"], "machine": ["x86_64"], "libc": ["glibc 2.31"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"engine_python": [""]}, "There is no Python for vLLM: python3 does not start; set vllm_python"),
        (
            {"engine_python": ["3.10.12"]},
            "Python 3.10.12, and vLLM needs Python 3.11 to 3.14: set vllm_python",
        ),
        ({"engine_python": ["3.15.0"]}, "python3 is Python 3.15.0"),
        ({"engine_venv": []}, "python3 cannot make virtual environments, which vLLM needs"),
        ({"machine": ["aarch64"]}, "This node is aarch64 with glibc 2.31, and the locked vLLM is for x86_64"),
        (
            {"libc": ["glibc 2.28"]},
            "with glibc 2.28, and the locked vLLM is for x86_64 with glibc 2.31",
        ),
        ({"libc": [""]}, "This node is x86_64 with another C library"),
        ({"engine_env_disk": ["/dev/sdc1 10000000"]}, "10.2 GB free, 20.0 GB are needed for vLLM in ~/vllm"),
        ({"engine_env_unwritable": ["/opt"]}, "/opt is not writable by this user, and vLLM in ~/vllm would go there."),
    ],
)
def test_what_vllm_needs(changes: dict[str, list[str]], said: str | None) -> None:
    room = {"engine_env_disk": ["/dev/sdc1 100000000"]}
    found = problems(probe(**{**VLLM_FIT, **room, **changes}), VLLM)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_another_vllm_than_the_locked_one_is_left_to_pip() -> None:
    needs = Needs(**{**vars(NEEDS), "engine": EngineNeeds(ENGINES["vllm"], "python3", "~/vllm", 0, locked=False)})
    old = {
        "engine_python": ["3.9.2"],
        "engine_venv": ["yes"],
        "machine": ["aarch64"],
        "engine_env_disk": ["/dev/sdc1 1"],
    }
    assert problems(probe(**old), needs) == []


def test_a_copy_that_is_spread_over_more_gpus_than_there_are() -> None:
    needs = Needs(
        **{**vars(NEEDS), "engine": EngineNeeds(ENGINES["vllm"], "python3", "~/vllm", 20, locked=True, gpus=2)}
    )
    there = {**VLLM_FIT, "engine_env_present": ["yes"]}
    few = "vLLM needs 2 GPUs of this node (tensor_parallel_size x pipeline_parallel_size), and it has 1."
    assert problems(probe(**there), needs) == [few]
    # Of two, one is chosen.
    two = [*FIT["gpu"], FIT["gpu"][0].replace("0, 00000000:3B", "1, 00000000:AF")]
    assert problems(probe(**there, gpu=two), needs) == []
    assert problems(probe(**there, gpu=two), replace(needs, gpus=Wanted("1"))) == [few]


def test_a_driver_older_than_the_locked_build_is_warned_of() -> None:
    (warning,) = warnings(probe(), VLLM)
    assert warning.startswith("The NVIDIA driver is 550.54.15, and the locked vLLM is built for 580 or newer.")
    assert warnings(probe(), NEEDS) == []
    new = ["0, 00000000:3B:00.0, NVIDIA A30, 24576, 580.65.06"]
    assert warnings(probe(gpu=new), VLLM) == []


def test_the_real_probe_describes_this_machine(tmp_path: Path) -> None:
    words = ["python3", f"{tmp_path}/not/yet", "", str(tmp_path), str(tmp_path), "cpu"]
    script = with_find(PROBE.read_text())
    done = subprocess.run(["sh", "-c", script, "probe", *words], capture_output=True, text=True, check=True)
    reported = Probe.parse("Welcome to this node!\n" + done.stdout)
    needs = Needs("cpu", "python3", words[1], 0.001, words[3], 0.001)
    assert problems(reported, needs) == []
    assert reported.values["model_present"] == "yes"
    assert "machine" not in reported.values
    done = subprocess.run(
        ["sh", str(PROBE), *words, "python3", str(tmp_path)], capture_output=True, text=True, check=True
    )
    more = Probe.parse(done.stdout).values
    assert (more["machine"], more["engine_python"]) == (platform.machine(), more["python"])
    assert more["libc"].startswith("glibc 2.")
    assert more["engine_env_disk"]
    assert problems(reported, Needs("cpu", "python3", words[1], 1e9, words[2], 0))[0].startswith(
        reported.values["env_disk"].split()[0]
    )
