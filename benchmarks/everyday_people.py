"""The people of everyday.py: their files, their commands and their runs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.rundir import RUN_FILE

# Timeout of a person's command.
LIMIT_S = 400
# Directory in each checkout.
EXPORTS = "prometheus"


@dataclass
class Person:
    """A person with a checkout and results; `accounts` on the nodes: their own and the shared one."""

    name: str
    account: str
    accounts: tuple[str, str]
    place: Path
    python: Path
    runs: list[Run] = field(default_factory=list)

    @property
    def checkout(self) -> Path:
        return self.place / "checkout"

    @property
    def results(self) -> Path:
        """The default place: both people have the same settings, as two strangers would."""
        return self.checkout / "results"

    @property
    def exports(self) -> Path:
        """The directory of Prometheus files, one for the newest run of each profile."""
        return self.checkout / EXPORTS

    @property
    def notified(self) -> Path:
        """The file with the verdicts that benchmark_notify sent, one per line."""
        return self.place / "notified.jsonl"

    def inventory(self, account: str) -> Path:
        return self.place / f"hosts-{account}.yml"

    def words(self, *words: str) -> list[str]:
        """Return a command as this person would run it, without anything of our own environment."""
        path = f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin"
        given = {"HOME": self.place, "PATH": path, "LANG": "C.UTF-8", "ANSIBLE_NOCOLOR": 1}
        given["ANSIBLE_SSH_CONTROL_PATH_DIR"] = self.place / "cp"
        as_person = ["runuser", "-u", self.account, "--", "env", "-i"]
        return [*as_person, *(f"{name}={value}" for name, value in given.items()), *words]

    def python_m(self, *words: str) -> list[str]:
        return self.words(str(self.python), "-m", "benchmark", *words)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of the project's commands to its end."""
        return subprocess.run(
            self.python_m(*words), cwd=self.checkout, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )

    def play(self, playbook: str, account: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook on the nodes as that account, to its end."""
        given = ["ansible-playbook", f"playbooks/{playbook}.yml", "-i", str(self.inventory(account)), *words]
        return subprocess.run(
            self.words(*given), cwd=self.checkout, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )

    def known(self) -> set[str]:
        """Return the ids of the runs in the results directory."""
        return {path.parent.name for path in self.results.glob(f"*/{RUN_FILE}") if not path.parent.is_symlink()}


@dataclass
class Run:
    """A requested run and its outcome."""

    number: int
    profile: str
    account: str
    log: Path
    run_id: str = ""
    code: int | None = None
    fate: str = "ran"
    """ran, resumed (after its controller was killed) or abandoned (after its controller was killed)."""
