"""What the actions share that deal with a run on a node: its scripts, its progress, its files."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.utils.display import Display
from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.cluster.fetched import unpack
from benchmark.errors import InputError
from benchmark.files import MAX_SAMPLES_BYTES
from benchmark.progress import describe
from benchmark.rundir import NODES

FILES = CHECKOUT / "roles/benchmark/files"
# Seconds that one look at the node may wait there: a line of progress comes as often.
LOOK_S = 5
RETRY_S = 3


class RunAction(NodeAction):
    """Base of the actions that are given `dir`, the run's directory on the controller.

    A lost connection is not a lost run: it is looked for again.
    """

    lost = ""
    """What ssh said of the connection when it was lost; empty while it is there."""
    last = ""
    """The last line of progress."""

    @property
    def run_dir(self) -> Path:
        """The run's directory on the controller."""
        return Path(str(self._task.args["dir"]))

    @property
    def place(self) -> Path:
        """The node's directory in it."""
        return self.run_dir / NODES / self.node

    def script(self, name: str, *words: str) -> str:
        """Run a script of the role on the node, with the run's directory there and the node's name before `words`."""
        text = shlex.quote((FILES / name).read_text(encoding="utf-8"))
        where = [f"{self.setting('benchmark_work_dir')}/{self.run_dir.name}", self.node]
        code, out, err = self.shell(f"sh -c {text} {name} {shlex.join([*where, *words])}")
        if code != 0:
            raise NodeFailure(f"{name} failed on the node: {' '.join((err or out).split())[-300:]}")
        return out

    def wait_for(self, file: str, deadline: float) -> str | None:
        """Return `file` once that is there, or the exit code or "vanished" once the run has ended.

        Looks once at least; returns None when `deadline` (of `time.monotonic`) has passed.
        """
        while True:
            left = deadline - time.monotonic()
            try:
                seconds = str(max(0, min(LOOK_S, math.ceil(left))))
                state, _, progress = self.script("watch.sh", seconds, file).partition("\n")
            except AnsibleConnectionFailure as error:
                self.lost = " ".join(str(error).split())[-200:]
                self.say("SSH connection lost, looking for it again; the run goes on")
                self.reconnect()
            else:
                if state != "running":
                    return state
                self.lost, self.last = "", _describe(progress)
                self.say(self.last)
            if time.monotonic() >= deadline:
                return None

    def fetch(self) -> list[str]:
        """Bring the files; a connection that breaks is tried again, for what was measured is on the node."""
        for attempt in range(3):
            try:
                packed = self.script("pack.sh").strip().splitlines()[-1:]
                path, _, size = (packed or [""])[0].rpartition(" ")
                if not size.isdigit() or int(size) > MAX_SAMPLES_BYTES:
                    raise NodeFailure(f"The node's files could not be packed: {' '.join(packed)[-300:]}")
                archive = self.place / "fetched.tar.gz"
                self._connection.fetch_file(path, str(archive))
                names = unpack(archive, self.place)
                archive.unlink()
            except InputError as error:
                raise NodeFailure(str(error)) from error
            except AnsibleConnectionFailure:
                if attempt == 2:
                    raise
                self.say("SSH connection lost while fetching, trying again")
                time.sleep(RETRY_S)
            else:
                return names
        return []

    def reconnect(self) -> None:
        """Let go of a connection that broke, and give the node time to come back."""
        with contextlib.suppress(Exception):
            self._connection.reset()
        time.sleep(RETRY_S)

    def say(self, words: str) -> None:
        """Show one line of the node's."""
        Display().display(f"{time.strftime('%H:%M:%S')} {self.node}: {words}")


def _describe(progress: str) -> str:
    try:
        content = json.loads(progress)
    except ValueError:
        return "starting"
    return describe(content) if isinstance(content, dict) else "starting"
