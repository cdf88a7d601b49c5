"""Action `benchmark_collect`: wait for the node's run, tell how far it is, bring its files back, failed or not."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.errors import AnsibleConnectionFailure
from ansible.utils.display import Display
from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.cluster.fetched import unpack, why_failed
from benchmark.errors import InputError
from benchmark.files import MAX_SAMPLES_BYTES
from benchmark.progress import describe
from benchmark.rundir import NODES

FILES = CHECKOUT / "roles/benchmark/files"
# Seconds that one look at the node may wait there for the run's end: a line of progress comes as often.
LOOK_S = 5
# After the node's own time limit: 30 s until SIGKILL, and time to write the result.
GRACE_S = 60
RETRY_S = 3


class ActionModule(NodeAction):
    """A lost connection is not a lost run: it is looked for again until the time limit has passed."""

    def act(self) -> dict[str, Any]:
        """Return the names of the files that came back."""
        if self.check_mode:
            return {"changed": False, "note": "Nothing was started, so there is nothing to collect."}
        run_dir = Path(str(self._task.args["dir"]))
        place = run_dir / NODES / self.node
        self._words = shlex.join([f"{self.setting('benchmark_work_dir')}/{run_dir.name}", self.node])
        timeout_s = int(self.setting("benchmark_timeout_s"))
        exit_code = self._wait(timeout_s + GRACE_S)
        names = self._fetch(place)
        if names and exit_code.isdigit():
            self._script("clean.sh")
        if reason := why_failed(exit_code, place, timeout_s):
            raise NodeFailure(reason)
        return {"changed": True, "files": names}

    def _wait(self, limit_s: int) -> str:
        """Return the exit code, or "vanished"."""
        deadline = time.monotonic() + limit_s
        lost = ""
        while time.monotonic() < deadline:
            try:
                state, _, progress = self._script("watch.sh", str(LOOK_S)).partition("\n")
            except AnsibleConnectionFailure as error:
                lost = " ".join(str(error).split())[-200:]
                self._say("SSH connection lost, looking for it again; the run goes on")
                with contextlib.suppress(Exception):
                    self._connection.reset()
                time.sleep(RETRY_S)
                continue
            if state != "running":
                self._say("done" if state in ("0", "1") else "failed")
                return state
            self._say(_describe(progress))
        raise NodeFailure(
            f"No end after {limit_s} s" + (f", and no connection: {lost}" if lost else ": the node does not stop it.")
        )

    def _fetch(self, place: Path) -> list[str]:
        """Bring the files; a connection that breaks is tried again, for what was measured is on the node."""
        for attempt in range(3):
            try:
                packed = self._script("pack.sh").strip().splitlines()[-1:]
                path, _, size = (packed or [""])[0].rpartition(" ")
                if not size.isdigit() or int(size) > MAX_SAMPLES_BYTES:
                    raise NodeFailure(f"The node's files could not be packed: {' '.join(packed)[-300:]}")
                archive = place / "fetched.tar.gz"
                self._connection.fetch_file(path, str(archive))
                names = unpack(archive, place)
                archive.unlink()
            except InputError as error:
                raise NodeFailure(str(error)) from error
            except AnsibleConnectionFailure:
                if attempt == 2:
                    raise
                self._say("SSH connection lost while fetching, trying again")
                time.sleep(RETRY_S)
            else:
                return names
        return []

    def _script(self, name: str, *words: str) -> str:
        text = shlex.quote((FILES / name).read_text(encoding="utf-8"))
        code, out, err = self.shell(f"sh -c {text} {name} {self._words} {shlex.join(words)}")
        if code != 0:
            raise NodeFailure(f"{name} failed on the node: {' '.join((err or out).split())[-300:]}")
        return out

    def _say(self, words: str) -> None:
        Display().display(f"{time.strftime('%H:%M:%S')} {self.node}: {words}")


def _describe(progress: str) -> str:
    try:
        content = json.loads(progress)
    except ValueError:
        return "starting"
    return describe(content) if isinstance(content, dict) else "starting"
