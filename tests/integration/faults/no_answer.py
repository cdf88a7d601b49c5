"""A run beside which others may go on: nodes that take a command and never answer cost it a minute of waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from tests.integration.conftest import Done, Playbooks
from tests.integration.faults import hostile
from tests.integration.faults.fleet import Fleet, send
from tests.integration.faults.left_over import processes_of

HANGS = "cd {place}\nsleep 1000\n"


@dataclass
class Unanswered:
    """The playbook on a node whose shell hangs before it reads a command, one whose python3 hangs, and a third."""

    fleet: Fleet
    process: subprocess.Popen[str]
    began: float
    took_s: float = 0

    def end(self) -> Done:
        """Wait for the end of the playbook."""
        output, _ = self.process.communicate(timeout=400)
        self.took_s = time.monotonic() - self.began
        return Done(self.process.returncode, output, (self.fleet.playbooks.results / "latest").resolve())

    def close(self) -> None:
        """End what is left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.fleet.close()
        # What the user's own profile starts there nobody but the user can end.
        for pid in processes_of(self.fleet.place("profile-hangs")):
            send(pid, signal.SIGKILL)


def start_unanswered(playbooks: Playbooks) -> Unanswered:
    """Start the playbook and return at once."""
    fleet = Fleet(playbooks, first_address=80)
    for name in ("profile-hangs", "python-hangs"):
        fleet.place(name).mkdir(parents=True)
    home = fleet.place("profile-hangs")
    (home / ".bashrc").write_text(HANGS.format(place=home))
    # A first shell, which reads that file, unlike those of the other nodes.
    fleet.add_own("profile-hangs", f"SetEnv HOME={home}\n")
    place = fleet.place("python-hangs")
    hostile.program(place, "python3", "#!/bin/sh\n" + HANGS.format(place=place))
    fleet.add("python-hangs", python_env_python=str(place / "python3"))
    fleet.add("fine")
    process = playbooks.start(playbooks.command("benchmark", inventory=playbooks.inventory(fleet.hosts)))
    return Unanswered(fleet, process, time.monotonic())
