"""What playbooks/files/clean.sh takes for left over, and that nothing goes that goes on or is needed."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

FILES = Path(__file__).parents[3] / "playbooks/files"
SCRIPT = (FILES / "removal.sh").read_text() + (FILES / "clean.sh").read_text()
RUN, OTHER = "20261128T120000Z-0123abcd", "20261128T130000Z-4567cdef"
DAY = 86400
MODEL = "models--org--name"


def clean(place: Path, mode: str = "look", *listed: str) -> list[list[str]]:
    """Run it with a limit of ten days."""
    words = [mode, "jw2", str(place / "runs"), str(place / "cache"), "no", str(10 * 1440), MODEL, str(place / "tmp")]
    words += [str(place / "a.b[c]" / "venv"), str(place / "a.b[c]" / "vllm")]
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "clean", *words],
        input="\n".join(listed) + "\n",
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(place / "home")},
    )
    assert not done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def gone(place: Path, *listed: str) -> list[str]:
    """Return what would go; then remove it, and see that only that has gone."""
    before = {path for path in place.rglob("*") if path.is_file()}
    would = [line[2] for line in clean(place, "look", *listed) if line[0] == "remove"]
    assert {path for path in place.rglob("*") if path.is_file()} == before
    assert [line[2] for line in clean(place, "remove", *would) if line[0] == "removed"] == would
    left = {path for path in before if not any(path.is_relative_to(one) for one in would)}
    assert {path for path in place.rglob("*") if path.is_file()} == left
    return would


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(path: Path, days: float = 20) -> Path:
    """Make a path, and all in it, look as if nobody had touched it for so long."""
    for one in (*path.rglob("*"), path):
        os.utime(one, (time.time() - days * DAY,) * 2, follow_symlinks=False)
    return path


def run_of(place: Path, run_id: str = RUN, node: str = "jw2", code: str = "0") -> Path:
    run = write(place / "runs" / run_id / node / "order.json", '"run_id"').parent
    if code:
        write(run / "exit_code", code)
    return run


def test_nothing_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert clean(tmp_path) == []
    assert clean(tmp_path, "remove") == []


def test_a_run_that_was_fetched_or_is_old_goes(tmp_path: Path) -> None:
    fetched, young, old = run_of(tmp_path), run_of(tmp_path, OTHER), run_of(tmp_path, "20261101T120000Z-0")
    dead = age(run_of(tmp_path, "20261101T120000Z-1", code=""))
    age(old)
    another = age(run_of(tmp_path, node="elsewhere"))
    age(write(tmp_path / "runs" / "mine" / "jw2" / "notes.txt").parent)
    archive = age(write(tmp_path / "runs" / "20261101T120000Z-2" / "jw2.tar.gz"))
    lines = clean(tmp_path, "look", RUN)
    why = f"it was not fetched here: -e benchmark_resume={OTHER} fetches it on the controller that opened it"
    assert ["leave", str(young), why] in lines
    assert {line[3] for line in lines if line[2] == str(fetched)} == {"a run that was fetched"}
    its_own = write(Path(f"{fetched}.tar.gz"))
    write(Path(f"{young}.tar.gz"))
    assert set(gone(tmp_path, RUN)) == {str(path) for path in (fetched, its_own, old, dead, archive)}
    assert not old.parent.exists()
    assert another.exists()


def test_a_run_that_goes_on_stays_whatever_its_age(tmp_path: Path) -> None:
    waiting = ["sh", "-c", "echo $$ > pid; exec sleep 300"]
    works, locked, fetched, begun = (run_of(tmp_path, f"{RUN}{n}", code="") for n in range(4))
    write(fetched / "exit_code", "0")
    held = write(locked / "running.lock").open()
    fcntl.flock(held, fcntl.LOCK_EX)
    processes = [
        subprocess.Popen(waiting, cwd=works),
        subprocess.Popen(["sh", "-c", "echo $$ > session; exec sleep 300"], cwd=fetched),
    ]
    try:
        # A file is there before the shell has written to it, which would make the run young again.
        while not all(file.exists() and file.read_text() for file in (works / "pid", fetched / "session")):
            time.sleep(0.01)
        for run in (works, locked, fetched):
            age(run)
        lines = clean(tmp_path, "look", *(run.parent.name for run in (works, locked, fetched, begun)))
        assert lines == [
            ["leave", str(works), "a run is measuring there"],
            ["leave", str(locked), "a run is measuring there"],
            ["leave", str(fetched), "it is being fetched"],
            ["leave", str(begun), "a run is measuring there"],
        ]
        # Also where somebody confirmed it before it began.
        clean(tmp_path, "remove", str(works), str(locked), str(fetched), str(begun))
        assert all((run / "order.json").exists() for run in (works, locked, fetched, begun))
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        held.close()
    age(begun)
    assert len(gone(tmp_path)) == 4


def environment(directory: Path, days: float) -> Path:
    write(directory / "pyvenv.cfg")
    write(directory / ".llm-benchmark", "fingerprint sum")
    (directory / "bin").mkdir()
    return age(directory, days)


def test_old_environments_go_unless_named_or_in_use(tmp_path: Path) -> None:
    place = tmp_path / "a.b[c]"
    environment(place / "venv", 90)
    environment(place / "venv-000000000001", 5)
    environment(place / "venv-000000000002", 90)
    used = environment(place / "venv-000000000003", 90)
    running = environment(place / "vllm-000000000004", 90)
    age(write(place / "venv-000000000005" / "pyvenv.cfg").parent)
    age(write(place / "venv-of-somebody" / "notes.txt").parent)
    (running / "bin" / "sleep").symlink_to("/bin/sleep")
    with (used / ".llm-benchmark").open() as mark, subprocess.Popen([running / "bin" / "sleep", "300"]) as process:
        fcntl.flock(mark, fcntl.LOCK_SH)  # as several runs may
        try:
            assert gone(tmp_path) == [str(place / "venv-000000000002")]
            assert clean(tmp_path) == [[*("leave", str(path)), "it is in use"] for path in (used, running)]
        finally:
            process.kill()
    with write(place / ".venv.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert clean(tmp_path)[0] == ["leave", str(place / "venv"), "an installation is under way"]
        assert gone(tmp_path) == [str(running)]
    assert gone(tmp_path) == [str(used)]


def test_wheels_and_downloads_that_were_cut_short_go(tmp_path: Path) -> None:
    wheels = age(write(tmp_path / "a.b[c]" / ".venv.wheels" / "jw2" / "torch.whl").parent)
    mixed = age(write(tmp_path / "a.b[c]" / ".vllm.wheels" / "jw2" / "notes.txt").parent)
    age(write(tmp_path / "a.b[c]" / ".vllm.wheels" / "jw3" / "torch.whl").parent)
    sent = age(write(tmp_path / "tmp" / "ansible-tmp-1" / "llm_datacenter_benchmark-0.2.0-py3-none-any.whl").parent)
    age(write(tmp_path / "tmp" / "ansible-tmp-2" / "AnsiballZ_ping.py").parent)
    hub = tmp_path / "cache" / "hub"
    ours = age(write(hub / MODEL / "blobs" / "aa.incomplete"))
    known = age(write(hub / "models--org--known" / "blobs" / "bb.host.incomplete"))
    (tmp_path / "cache" / "llm-benchmark" / "models--org--known").mkdir(parents=True)
    age(write(hub / "models--org--theirs" / "blobs" / "cc.incomplete"))
    write(hub / MODEL / "blobs" / "young.incomplete")
    age(write(hub / MODEL / "blobs" / "whole"))
    with write(hub / ".locks" / MODEL / "aa.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ["leave", str(ours), "it is being downloaded"] in clean(tmp_path)
        assert set(gone(tmp_path)) == {str(path) for path in (wheels, known, sent)}
    assert gone(tmp_path) == [str(ours)]
    assert mixed.exists()


def test_a_link_and_another_users_run_stay(tmp_path: Path) -> None:
    run = age(run_of(tmp_path))
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    assert clean(tmp_path, "look", RUN) == [["leave", str(run), "it is a link: remove its target by hand"]]
    if os.geteuid() == 0:
        foreign = age(run_of(tmp_path, OTHER))
        os.chown(foreign, 65534, 65534)
        assert ["leave", str(foreign), "it belongs to another user"] in clean(tmp_path)
    assert gone(tmp_path, RUN) == []
