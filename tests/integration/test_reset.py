"""playbooks/reset.yml takes away what the roles made, after it was shown and confirmed, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.integration.conftest import Done, Playbooks
from tests.integration.ssh_nodes import CHECKOUT

COMMIT = "a" * 40


@pytest.fixture
def reset(playbooks: Playbooks) -> Playbooks:
    """Nodes with homes of their own, as far as settings name them."""
    place = f"{playbooks.directory}/nodes/{{{{ inventory_hostname }}}}"
    playbooks.variables = {"python_env_dir": f"{place}/llm-benchmark/venv", "vllm_dir": f"{place}/llm-benchmark/vllm"}
    for name in ("jw2", "jw3"):
        fill(node(playbooks, name), name)
    return playbooks


def node(playbooks: Playbooks, name: str) -> Path:
    return playbooks.directory / "nodes" / name


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def environment(directory: Path, mark: bool = True) -> None:
    write(directory / "pyvenv.cfg")
    (directory / "bin").mkdir()
    if mark:
        write(directory / ".llm-benchmark", "fingerprint\nsum\n")
    write(directory.with_name(f".{directory.name}.lock"))


def run_of(place: Path, name: str, run_id: str = "20261128T120000Z-0123abcd") -> Path:
    run = place / "runs" / run_id / name
    write(run / "order.json", '{\n "run_id": "x"\n}')
    return run


def fill(place: Path, name: str) -> None:
    environment(place / "llm-benchmark" / "venv")
    environment(place / "llm-benchmark" / "vllm", mark=False)
    write(place / "llm-benchmark" / ".venv.wheels" / name / "torch.whl", "x" * 2_000_000)
    write(run_of(place, name) / "samples.jsonl", "{}\n")
    write(place / "runs" / "20261128T120000Z-0123abcd" / f"{name}.tar.gz")
    write(run_of(place, "elsewhere") / "exit_code", "0\n")
    write(place / "runs" / "mine" / name / "notes.txt")
    cache = place / "huggingface"
    for repository, known in (
        ("models--org--ours", [COMMIT]),
        ("models--org--half", [COMMIT]),
        ("models--org--theirs", []),
    ):
        write(cache / "hub" / repository / "snapshots" / COMMIT / "config.json", "{}")
        for commit in known:
            write(cache / "llm-benchmark" / repository / f"{commit}.json", "{}")
    write(cache / "hub" / "models--org--half" / "snapshots" / ("b" * 40) / "config.json", "{}")


def words(done: Done) -> str:
    """Return what was printed, however its lines were broken."""
    return " ".join(done.output.split())


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


KEPT = {
    "llm-benchmark/vllm/pyvenv.cfg",
    "llm-benchmark/.vllm.lock",
    "runs/20261128T120000Z-0123abcd/elsewhere/order.json",
    "runs/20261128T120000Z-0123abcd/elsewhere/exit_code",
}


def test_check_shows_all_and_removes_nothing(reset: Playbooks) -> None:
    before = files(node(reset, "jw2"))
    shown = reset.run("reset", "--check")
    assert shown.code == 0, shown.output
    assert "2.0 MB would be removed" in shown.output
    for what in (
        "llm-benchmark/venv (an environment)",
        "jw2 (a run that was not fetched)",
        "huggingface: reset_hf_cache",
    ):
        assert what in words(shown)
    refused = reset.run("reset")
    assert refused.code == 2, refused.output
    assert "Nothing was removed: it was not confirmed" in refused.output
    assert files(node(reset, "jw2")) == before


def test_what_was_confirmed_is_gone_and_all_else_stays(reset: Playbooks) -> None:
    done = reset.run("reset", "-e", "reset_confirm=yes")
    assert done.code == 0, done.output
    for name in ("jw2", "jw3"):
        left = files(node(reset, name))
        assert {one for one in left if not one.startswith("huggingface/")} == {*KEPT, f"runs/mine/{name}/notes.txt"}
        assert len([one for one in left if one.startswith("huggingface/")]) == 6
    for why in ("it lacks the mark .llm-benchmark", "it has no order of a run", "the run of another node, elsewhere"):
        assert why in words(done)
    again = reset.run("reset", "-e", "reset_confirm=yes")
    assert again.code == 0, again.output
    assert (again.recap("jw2")["changed"], "nothing to remove" in again.output) == (0, True)


def test_a_person_is_asked_once_for_all_nodes_and_no_means_no(reset: Playbooks) -> None:
    command, before = reset.command("reset"), files(node(reset, "jw3"))
    for answer, code in (("no", 0), ("yes", 0)):
        child = pexpect.spawn(
            command[0], command[1:], cwd=str(CHECKOUT), env=reset.environment(), encoding="utf-8", timeout=60
        )
        child.expect_exact("(yes/no)")
        assert str(child.before).count("would be removed") == 2
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == code, child.before
        if answer == "no":
            assert "Nothing was removed: the answer was no." in str(child.before)
            assert files(node(reset, "jw3")) == before
    assert {one for one in files(node(reset, "jw3")) if one.startswith("llm-benchmark/")} == {
        "llm-benchmark/vllm/pyvenv.cfg",
        "llm-benchmark/.vllm.lock",
    }


def test_the_cache_goes_where_it_is_asked_for(reset: Playbooks) -> None:
    done = reset.run("reset", "-e", "reset_confirm=yes", "-e", "reset_hf_cache=true")
    assert done.code == 0, done.output
    left = {one for one in files(node(reset, "jw2")) if one.startswith("huggingface/")}
    assert {one.split("/")[2] for one in left} == {"models--org--half", "models--org--theirs"}
    assert f"hf_cache did not fetch its snapshot {'b' * 40}" in words(done)


def test_a_node_that_measures_is_left_alone(reset: Playbooks) -> None:
    run = run_of(node(reset, "jw2"), "jw2", "20261128T130000Z-0123abcd")
    with subprocess.Popen(["sleep", "300"], cwd=run) as measuring:
        try:
            write(run / "pid", f"{measuring.pid}\n")
            before = files(node(reset, "jw2"))
            done = reset.run("reset", "-e", "reset_confirm=yes")
        finally:
            measuring.kill()
    assert done.code == 2, done.output
    assert f"Nothing was removed here: a run measures in {run}" in words(done)
    assert files(node(reset, "jw2")) == before
    assert not (node(reset, "jw3") / "llm-benchmark" / "venv").exists()


def test_an_environment_that_is_in_use_stays(reset: Playbooks) -> None:
    python = node(reset, "jw2") / "llm-benchmark" / "venv" / "bin" / "python"
    python.symlink_to(sys.executable)
    waits = [str(python), "-c", "print(flush=True); input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as used:
        try:
            assert used.stdout
            used.stdout.readline()
            done = reset.run("reset", "-e", "reset_confirm=yes", "--limit", "jw2")
        finally:
            used.kill()
    assert done.code == 2, done.output
    assert f"process {used.pid} runs from the environment" in words(done)
    assert python.exists()


def test_what_real_provisioning_made_is_recognised(playbooks: Playbooks, light_venv: Path) -> None:
    """The marks are those that the roles write, not those that these tests do."""
    venv = playbooks.directory / "real" / "venv"
    shutil.copytree(light_venv, venv, symlinks=True)
    done = playbooks.run("reset", "--check", "--limit", "jw2", inventory=playbooks.inventory(python_env_dir=str(venv)))
    assert f"{venv} (an environment)" in words(done), done.output
    assert CHECKOUT.exists()
