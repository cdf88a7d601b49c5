"""Two people who use the benchmark every day: what is theirs, how they ask for something, and their runs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.rundir import RUN_FILE

# Of whatever a person asks for.
LIMIT_S = 400
# Within each checkout.
EXPORTS = "prometheus"


@dataclass
class Person:
    """Somebody with a checkout and results; `accounts` are those on the nodes: their own, and the shared one."""

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
        """Where it is by default: both people's settings are the same, as those of two strangers would be."""
        return self.checkout / "results"

    @property
    def exports(self) -> Path:
        """Where the newest run of each profile lies for Prometheus."""
        return self.checkout / EXPORTS

    @property
    def notified(self) -> Path:
        """The verdicts that benchmark_notify was given, one a line."""
        return self.place / "notified.jsonl"

    def inventory(self, account: str) -> Path:
        return self.place / f"hosts-{account}.yml"

    def words(self, *words: str) -> list[str]:
        """Return a command as this person would give it; nothing of our own environment is theirs."""
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
        """Return the ids of the runs that lie in the results directory."""
        return {path.parent.name for path in self.results.glob(f"*/{RUN_FILE}") if not path.parent.is_symlink()}


@dataclass
class Run:
    """A run that was asked for, and what came of it."""

    number: int
    profile: str
    account: str
    log: Path
    run_id: str = ""
    code: int | None = None
    fate: str = "ran"
    """ran, resumed (after its controller was killed) or abandoned (the same, and left alone)."""
