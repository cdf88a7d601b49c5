"""What playbooks/files/reset.sh takes for the roles' own, and when it keeps away."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).parents[3] / "playbooks/files"
SCRIPT = (FILES / "removal.sh").read_text() + (FILES / "reset.sh").read_text()
RUN = "20261128T120000Z-0123abcd"


def reset(place: Path, mode: str, stdin: str = "", cache: str = "no", others: str = "no") -> list[list[str]]:
    words = [mode, "jw2", str(place / "runs"), str(place / "huggingface"), others, cache]
    words += ["~/.cache/vllm:~/.cache/other"]
    words += [str(place / "a.b[c]" / "venv"), str(place / "a.b[c]" / "vllm")]
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "reset", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(place / "home")},
    )
    assert not done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    venv = tmp_path / "a.b[c]" / "venv"
    write(venv / "pyvenv.cfg")
    write(venv / ".llm-benchmark")
    (venv / "bin").mkdir()
    return venv


def test_nothing_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert reset(tmp_path, "look") == []
    assert reset(tmp_path, "remove", "\n") == []


def test_only_what_was_confirmed_goes(tmp_path: Path, venv: Path) -> None:
    run = write(tmp_path / "runs" / RUN / "jw2" / "order.json", '"run_id"').parent
    write(run / "exit_code", "0")
    assert [line[2] for line in reset(tmp_path, "look")] == [str(run), str(venv)]
    assert reset(tmp_path, "remove", f"{venv}\n")[0] == ["leave", str(run), "it appeared after you were asked"]
    assert (run.exists(), venv.exists()) == (True, False)


def test_one_that_was_begun_goes_and_one_of_others_stays(tmp_path: Path, venv: Path) -> None:
    (venv / ".llm-benchmark").rename(venv / ".llm-benchmark.part")
    theirs = write(venv.with_name("vllm") / "pyvenv.cfg").parent
    shown = reset(tmp_path, "look")
    assert [line[0::2] for line in shown if line[0] == "remove"] == [["remove", str(venv)]]
    assert ["leave", str(theirs), "it lacks the mark .llm-benchmark: the roles did not make it"] in shown
    reset(tmp_path, "remove", f"{venv}\n{theirs}\n")
    assert (venv.exists(), theirs.exists()) == (False, True)


def test_environments_of_other_checkouts_go_too(tmp_path: Path, venv: Path) -> None:
    beside = venv.with_name("venv-0123456789ab")
    shutil.copytree(venv, beside)
    write(venv.with_name("venv-of-somebody") / "notes.txt")
    assert [line[2] for line in reset(tmp_path, "look")] == [str(venv), str(beside)]
    (beside / "code" / "ab" / "bin").mkdir(parents=True)
    (beside / "code" / "ab" / "bin" / "sleep").symlink_to("/bin/sleep")
    with subprocess.Popen([str(beside / "code" / "ab" / "bin" / "sleep"), "300"]) as process:
        try:
            assert reset(tmp_path, "look") == [["busy", f"process {process.pid} runs from the environment {beside}"]]
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_what_another_user_owns_stays_unless_asked(tmp_path: Path, venv: Path) -> None:
    os.chown(venv, 65534, 65534)
    assert reset(tmp_path, "look") == [["leave", str(venv), "it belongs to another user"]]
    assert reset(tmp_path, "remove", f"{venv}\n", others="yes")[0][0] == "removed"


def test_a_link_stays_with_what_it_leads_to(tmp_path: Path, venv: Path) -> None:
    venv.rename(tmp_path / "elsewhere")
    venv.symlink_to(tmp_path / "elsewhere")
    (line,) = reset(tmp_path, "remove", f"{venv}\n")
    assert line == ["leave", str(venv), "it is a link: remove its target by hand"]
    assert (tmp_path / "elsewhere" / ".llm-benchmark").exists()


@pytest.mark.parametrize("lock", ["a.b[c]/.venv.lock", f"runs/{RUN}/elsewhere/running.lock"])
def test_a_lock_that_is_held_keeps_it_away(tmp_path: Path, venv: Path, lock: str) -> None:
    """An installation; and a run of another node that shares this home, whose processes are not seen here."""
    write(tmp_path / "runs" / RUN / "elsewhere" / "order.json", '"run_id"')
    with write(tmp_path / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (line,) = reset(tmp_path, "remove", f"{venv}\n")
        assert line[0] == "busy"
    assert venv.exists()
    assert reset(tmp_path, "remove", f"{venv}\n")[-1][0] == "removed"


def test_a_process_of_the_environment_keeps_it_away(tmp_path: Path, venv: Path) -> None:
    (venv / "bin" / "sleep").symlink_to("/bin/sleep")
    with subprocess.Popen([str(venv / "bin" / "sleep"), "300"]) as process:
        try:
            assert reset(tmp_path, "look") == [["busy", f"process {process.pid} runs from the environment {venv}"]]
        finally:
            process.kill()


def test_wheels_among_which_something_else_lies_stay(tmp_path: Path) -> None:
    wheels = write(tmp_path / "a.b[c]" / ".venv.wheels" / "jw2" / "torch.whl").parents[1]
    assert [line[2] for line in reset(tmp_path, "look")] == [str(wheels)]
    write(wheels / "notes.txt")
    assert reset(tmp_path, "look") == [["leave", str(wheels), "it contains more than wheels"]]
