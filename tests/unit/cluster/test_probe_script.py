"""roles/preflight/files/probe.sh with programs that hang, fail or say odd things: the rest is answered all the same."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.cluster.preflight import Needs, Probe, problems
from tests.unit.cluster.probed import ask

LIST = "0, 00000000:3B:00.0, NVIDIA A30, 24576, 550.54.15"
# In the place of a command that hangs until it is killed; and of one that nothing can kill before the probe has ended.
HANGS = "exec sleep 300"
# A node with nothing but a few programs, among which `timeout` is not; nvidia-smi hangs there.
NO_TIMEOUT = "no-timeout"
OLD_DRIVER = f"""case $* in
  *gpu_recovery_action*) echo 'Field "gpu_recovery_action" is not a valid field to query.'; exit 2 ;;
  *) echo '{LIST}' ;;
esac"""


def found(probe: Probe, tmp_path: Path) -> list[str]:
    return problems(probe, Needs("cuda", "python3", f"{tmp_path}/not/yet", 0.001, str(tmp_path), 0.001))


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Probe, Path]]:
    """What the probe says on nodes where one program hangs each, by the program: they are waited for all at once."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("nvidia-smi", "df", "python3", NO_TIMEOUT)}
    few = places[NO_TIMEOUT] / "few"
    few.mkdir()
    for name in ("mktemp", "sleep", "dirname", "df", "readlink", "rm", "sed", "tail"):
        (few / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")

    def reported(name: str) -> tuple[Probe, Path]:
        if name == NO_TIMEOUT:
            return ask(places[name], {"nvidia-smi": "sleep 30"}, path=str(few), limit_s=5), places[name]
        return ask(places[name], {"nvidia-smi": f"echo '{LIST}'", name: HANGS}, limit_s=5), places[name]

    with ThreadPoolExecutor(len(places)) as pool:
        return dict(zip(places, pool.map(reported, places), strict=True))


@pytest.mark.parametrize(
    ("program", "said"),
    [("nvidia-smi", "but nvidia-smi hangs"), ("df", "but df -Pk"), ("python3", "but python3 hangs there")],
)
def test_a_command_that_hangs_is_named_and_the_rest_answers(
    program: str, said: str, hanging: dict[str, tuple[Probe, Path]]
) -> None:
    probe, place = hanging[program]
    sentences = found(probe, place)
    assert all(said in sentence for sentence in sentences)
    assert len(sentences) == 1
    assert ("gpu_status" in probe.values) == (program != "nvidia-smi")
    assert ("python" in probe.values) == (program != "python3")


def test_without_the_program_timeout_too(hanging: dict[str, tuple[Probe, Path]]) -> None:
    probe, _ = hanging[NO_TIMEOUT]
    assert probe.hung == {"gpu": "nvidia-smi"}
    assert probe.values["python"] == "3.11.2"
    assert probe.many["missing_program"] == ["timeout", "setsid", "tar", "gzip"]


def test_a_driver_that_knows_no_recovery_action_is_asked_without(tmp_path: Path) -> None:
    probe = ask(tmp_path, {"nvidia-smi": OLD_DRIVER})
    assert found(probe, tmp_path) == []
    assert probe.many["gpu"] == [LIST]


def test_both_outputs_of_nvidia_smi_are_read(tmp_path: Path) -> None:
    probe = ask(tmp_path, {"nvidia-smi": f"echo 'GPU is lost' >&2; echo '{LIST}'; exit 15"})
    assert "nvidia-smi lists 1 GPU and says: GPU is lost" in found(probe, tmp_path)[0]


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("echo Loading module pytorch/2.13 ...; echo 3.11.2", "3.11.2"),
        ("echo 3.11.2; echo module: not found", ""),
        ("head -c 3000 /dev/urandom; echo", ""),
        ("exit 127", ""),
    ],
)
def test_only_a_version_is_taken_for_one(tmp_path: Path, says: str, version: str) -> None:
    assert ask(tmp_path, {"python3": says, "nvidia-smi": "exit 9"}).values["python"] == version


def test_a_python_that_is_looked_at_gets_no_compiled_files(tmp_path: Path) -> None:
    kept = tmp_path / "compiled"
    ask(tmp_path, {"python3": f'PYTHONPYCACHEPREFIX={kept} exec {sys.executable} "$@"', "nvidia-smi": "exit 9"})
    assert not kept.exists()


def test_the_gpus_of_the_pci_bus_are_listed(tmp_path: Path) -> None:
    for number, (vendor, kind, driver) in enumerate(
        [
            ("0x10de", "0x030200", "nvidia"),
            ("0x10de", "0x030200", "vfio-pci"),
            ("0x10de", "0x040300", "snd_hda_intel"),
            ("0x8086", "0x030000", "i915"),
        ]
    ):
        device = tmp_path / "pci" / f"0000:0{number}:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
        (device / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
    probe = ask(tmp_path, {"nvidia-smi": f"echo '{LIST}'"})
    assert probe.many["pci_gpu"] == ["0000:00:00.0"]


def test_files_that_the_run_will_read_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.json").write_text("[]")
    lines = [f"benchmark_dataset_path\t{tmp_path}/here.json", f"benchmark_endpoint_ca_file\t{tmp_path}/no ca.pem"]
    monkeypatch.setenv("PREFLIGHT_FILES", "\n".join(lines))
    probe = ask(tmp_path, {"nvidia-smi": f"echo '{LIST}'"})
    assert [sentence for sentence in found(probe, tmp_path) if "no such file" in sentence] == [
        f"benchmark_endpoint_ca_file is {tmp_path}/no ca.pem, and there is no such file on the node: put it there, or "
        "set another path."
    ]


MOONCAKES = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [%s]}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "which is empty on the node."),
        ("\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n", ""),
        ("\n" + MOONCAKES % "", ""),
        (MOONCAKES % ", ".join(map(str, range(2000))), ""),
        ('{"timestamp": 0, "input_tokens": 1}\n', " has no input_length and no output_length; a trace is Mooncake's"),
        ("arrived_at,TIMESTAMP,prompt\n", " has no ContextTokens and no GeneratedTokens; a trace is Mooncake's"),
        ("\0" * 9000, " has no TIMESTAMP and no ContextTokens and no GeneratedTokens; a trace is Mooncake's"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_before_work(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    monkeypatch.setenv("PREFLIGHT_FILES", f"benchmark_dataset_path\t{path}")
    probe = ask(tmp_path, {"nvidia-smi": f"echo '{LIST}'"})
    needs = Needs("cuda", "python3", f"{tmp_path}/not/yet", 0.001, str(tmp_path), 0.001, trace=str(path))
    sentences = [sentence for sentence in problems(probe, needs) if "benchmark_dataset_path" in sentence]
    assert [said in sentence for sentence in sentences] == ([True] if said else [])
