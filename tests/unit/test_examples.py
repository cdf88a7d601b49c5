"""The units and the crontab in docs/examples/ are what systemd and cron take, and their commands are ours."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli import COMMANDS

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples"
SERVICE, TIMER, CRONTAB = "llm-benchmark@.service", "llm-benchmark@.timer", "llm-benchmark.cron"


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign] # keys keep their capitals
    parsed.read(EXAMPLES / name)
    return parsed


def jobs() -> list[str]:
    """Return the commands of the crontab; fails for a line that cron would not take."""
    commands = []
    for line in (EXAMPLES / CRONTAB).read_text().splitlines():
        if not line or line.startswith("#") or re.fullmatch(r'[A-Z]+=("[^"]*"|\S*)', line):
            continue
        match = re.fullmatch(r"(?:[0-9*,/-]+ ){5}(.*)", line)
        assert match, line
        assert "%" not in match[1], "cron takes it for a new line"
        commands.append(match[1])
    return commands


def as_installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a home with this checkout in it, as the examples expect it; return the checkout's place there."""
    checkout = place / "llm-datacenter-benchmark"
    checkout.symlink_to(CHECKOUT)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("ANSIBLE_INVENTORY", str(place / "hosts.yml"))
    (place / "hosts.yml").write_text("gpu_nodes: {hosts: {here: {ansible_connection: local}}}\n")
    monkeypatch.chdir(checkout)
    return checkout


def service_command(home: Path) -> list[str]:
    """Return the words of the service's command for a profile that there is not."""
    given = unit(SERVICE)["Service"]["ExecStart"].replace("%h", str(home)).replace("%i", "no-such-profile")
    return [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(given)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    instances = []
    for name in (SERVICE, TIMER):
        instances.append(tmp_path / name.replace("@", "@quick"))
        shutil.copy(EXAMPLES / name, instances[-1])
    words = ["systemd-analyze", "--user", "verify", *map(str, instances)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_timer_is_of_the_service() -> None:
    assert Path(TIMER).stem == Path(SERVICE).stem
    assert unit(TIMER)["Install"]["WantedBy"] == "timers.target"
    service = unit(SERVICE)["Service"]
    # Else a stop would reach ansible-playbook twice, which leaves the nodes measuring.
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= 120


def test_their_commands_are_ours() -> None:
    service = unit(SERVICE)["Service"]
    called = [service["ExecStart"], shlex.split(service["ExecStopPost"].lstrip("-"))[-1], *jobs()]
    for command in called:
        (name,) = re.findall(r"\.venv/bin/python -m benchmark (\S+)", command)
        assert name in COMMANDS
    locks = [command.partition("flock ")[2].partition(".venv")[0] for command in (service["ExecStart"], jobs()[0])]
    assert locks[0] == locks[1].replace('"', "").replace("$HOME", "%h"), "one lock for both"


def test_the_service_runs_and_waits_for_a_run_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To where ansible-playbook refuses the profile: that it was called from where it finds everything."""
    as_installed(tmp_path, monkeypatch)
    words = service_command(tmp_path)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "benchmark_profile is 'no-such-profile'" in done.stderr
    assert "no-such-profile" in shlex.join(words)
    with (tmp_path / ".llm-benchmark.lock").open() as lock:
        subprocess.run(["flock", "-n", str(lock.fileno())], pass_fds=[lock.fileno()], check=True)
        impatient = ["0" if word == "14400" else word for word in words]
        assert subprocess.run(impatient, capture_output=True, check=False).returncode == 75


def test_the_crontab_runs_with_what_cron_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_installed(tmp_path, monkeypatch)
    path = re.search(r"^PATH=(.*)$", (EXAMPLES / CRONTAB).read_text(), re.MULTILINE)
    assert path
    command = jobs()[0].replace(".venv/bin/python", sys.executable).replace("=quick", "=no-such-profile")
    environment = {"HOME": str(tmp_path), "PATH": path[1], "ANSIBLE_INVENTORY": os.environ["ANSIBLE_INVENTORY"]}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert "benchmark_profile is 'no-such-profile'" in (tmp_path / ".llm-benchmark.log").read_text()
