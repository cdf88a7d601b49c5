"""What the actions share that deal with a run on a node: its scripts, its progress, its files."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import math
import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import live_channel
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.utils.display import Display
from bounds import TooMuch
from leader import alone, require_leader
from node_action import ANSWER_S, CHECKOUT, NodeAction, NodeFailure
from play_settings import nodes, secrets_of

from benchmark.cluster.fetched import Packed, unpack
from benchmark.errors import InputError
from benchmark.files import MAX_SAMPLES_BYTES, read_record
from benchmark.progress import Told, describe, parse
from benchmark.rundir import NODES, ORDER, RunOrder

FILES = CHECKOUT / "roles/benchmark/files"
# Seconds that one look at a node may wait there, for each node: what looking costs the controller does not grow with
# the nodes. A node's end is told at once, and its next stage within a quarter of that.
LOOK_S_PER_NODE = 0.1
LOOK_S = (2, 20)
# A look that comes back sooner is not repeated at once: what a node says cannot make the controller busy.
LEAST_LOOK_S = 0.2
RETRY_S = 3
# To pack, and to bring, the most that a node may send: 2 GiB at 10 MB/s, and as long again.
TRANSFER_S = 400
# After the node's own time limit: 30 s until SIGKILL, and time to write the result.
GRACE_S = 60
# Exit codes of a run that completed.
COMPLETED = ("0", "1")
# What stop.sh says where the run was never started.
NOTHING = "nothing"
# What watch.sh says where there is nothing to fetch any more.
REMOVED = "removed"
# Beside a node's files on the controller: what it sent, until that is unpacked.
ARCHIVE = "fetched.tar.gz"
# Beside a node's files on the controller, for the task that fails: why it was not told when to start, and why its run
# could not even be started.
BEHIND, REFUSED = "left_behind.txt", "not_started.txt"


class RunAction(NodeAction):
    """Base of the actions that are given `dir`, the run's directory on the controller.

    A lost connection is not a lost run: it is looked for again.
    """

    lost = ""
    """What ssh said of the connection when it was lost; empty while it is there."""
    last: Told | None = None
    """What the node's run said last."""

    @property
    def run_dir(self) -> Path:
        """The run's directory on the controller."""
        return Path(str(self._task.args["dir"]))

    @property
    def place(self) -> Path:
        """The node's directory in it."""
        return self.run_dir / NODES / self.node

    @cached_property
    def order(self) -> RunOrder:
        """What this attempt asks of the node."""
        return read_record(self.place / ORDER, RunOrder)

    @property
    def on_node(self) -> str:
        """The directory on the node that holds the node's directory of this run."""
        return f"{self.setting('benchmark_work_dir')}/{self.run_dir.name}"

    def alone(self) -> AbstractContextManager[None]:
        """Keep others from this node's part of the run: a worker of a controller that was killed may still be at it."""
        return nullcontext() if self.check_mode else alone(self.place)

    def script(self, name: str, *words: str, stdin: str | None = None, answer_s: float = ANSWER_S) -> str:
        """Run a script of the role on the node, with the run's directory there and the node's name before `words`."""
        command = shlex.join(["sh", "-c", script_text(name), name, self.on_node, self.node, *words])
        code, out, err = self.shell(command, stdin, answer_s)
        if code != 0 or "No space left on device" in err:
            reason = why_refused(name, err or out, self.on_node)
            raise NodeFailure(reason)
        return out

    def start(self) -> bool:
        """Start the run, and tell whether this call did: whoever finds its directory made has nothing to start."""
        given = start_input(self.place, self.task_vars["hostvars"][self.node])
        return self.script("start.sh", *start_words(self.order), stdin=given).strip() == "started"

    def wait_for(self, file: str, deadline: float) -> str | None:
        """Return `file` once that is there, or what watch.sh says of the run's end once it has ended.

        Looks once at least; returns None when `deadline` (of `time.monotonic`) has passed.
        """
        every_s = look_s(len(nodes(self.task_vars)))
        while True:
            began = time.monotonic()
            seconds = max(0, min(every_s, math.ceil(deadline - began)))
            known, quarter = self.last.state if self.last else "", max(1, seconds // 4)
            try:
                state, _, told = self.script("watch.sh", str(seconds), file, known, str(quarter)).partition("\n")
            except AnsibleConnectionFailure as error:
                if not self.lost:
                    self.say("SSH connection lost, looking for it again; the run goes on")
                self.lost = " ".join(str(error).split())[-200:]
                self.reconnect()
                require_leader()
            else:
                require_leader()
                if state != "running":
                    return state
                self.lost = ""
                self.tell(parse(told))
            if time.monotonic() >= deadline:
                return None
            time.sleep(max(0.0, LEAST_LOOK_S - (time.monotonic() - began)))

    def fetch(self, attempts: int = 3, into: Path | None = None) -> list[str]:
        """Bring the files; a connection that breaks is tried again, for what was measured is on the node.

        A failure says where on the node that is, and how to get it; who hears of a lost connection has to say so.
        """
        try:
            for attempt in range(attempts):
                try:
                    return self._bring(Packed.parse(self.script("pack.sh", answer_s=TRANSFER_S)), into or self.place)
                except AnsibleConnectionFailure:
                    if attempt == attempts - 1:
                        raise
                    self.say("SSH connection lost while fetching, trying again")
                    time.sleep(RETRY_S)
        except (NodeFailure, TooMuch) as error:
            raise NodeFailure(f"{error} {self.stays}") from error
        return []

    def _bring(self, packed: Packed, place: Path) -> list[str]:
        """Bring what was packed. Whether it came whole is seen from the archive, not from what carried it."""
        archive = place / ARCHIVE
        lost: AnsibleError | None = None
        try:
            if not 0 < packed.size <= MAX_SAMPLES_BYTES:
                raise NodeFailure(why_refused("pack.sh", packed.said or "it packed nothing", self.on_node))
            if packed.inline:
                archive.write_bytes(base64.b64decode(packed.inline))
            else:
                try:
                    with self.bounded(TRANSFER_S):
                        self._connection.fetch_file(packed.path, str(archive))
                except AnsibleError as error:
                    lost = error
            return unpack(archive, place, expected=packed.files)
        except (InputError, binascii.Error, OSError) as error:
            if isinstance(lost, AnsibleConnectionFailure):
                raise lost from None
            if "No space left on device" in packed.said:
                raise NodeFailure(why_refused("pack.sh", packed.said, self.on_node)) from error
            reasons = [f"{error}".rstrip("."), *([f"tar said: {packed.said}"] if packed.said else [])]
            if lost:
                reasons.append(" ".join(str(lost).split())[-300:])
            raise NodeFailure("; ".join(reasons) + ".") from error
        finally:
            archive.unlink(missing_ok=True)

    @property
    def stays(self) -> str:
        """The sentence that says where on the node its files are, and how to get them."""
        return (
            f"Its files stay on {self.node} in {self.on_node}/{self.node}: -e benchmark_resume={self.run_dir.name} "
            "fetches them."
        )

    def clean(self) -> None:
        """Remove on the node what lies here; that it cannot be removed takes nothing from what was measured."""
        try:
            self.script("clean.sh")
        except (AnsibleError, NodeFailure):
            self.say("what it measured is here, and could not be removed there")

    def end(self) -> bool:
        """Stop the run on the node, and bring its files; return whether there was one."""
        if self.script("stop.sh").strip() == NOTHING:
            return False
        if self.fetch():
            self.clean()
        return True

    def after_interruption(self) -> dict[str, Any]:
        """Stop the node's run and bring what it measured; the result of a run that had completed by then counts."""
        if self.check_mode:
            return super().after_interruption()
        self.say("stopping it")
        try:
            if self.script("stop.sh").strip() == NOTHING:
                return super().after_interruption()
            ended = self.script("watch.sh", "0", "exit_code", "", "1").partition("\n")[0]
            if names := self.fetch(attempts=1):
                self.clean()
        except AnsibleConnectionFailure as error:
            told = " ".join(str(error).split())[-200:]
            raise NodeFailure(
                f"{self.interruption}, and the node could not be asked to stop ({told}): it ends by itself, at the "
                f"latest after benchmark_timeout_s. {self.stays}"
            ) from None
        if ended in COMPLETED:
            return {"changed": True, "files": names}
        raise NodeFailure(f"{self.interruption}: it was stopped, and what it had measured was fetched.")

    def reconnect(self) -> None:
        """Let go of a connection that broke, and give the node time to come back."""
        with contextlib.suppress(Exception):
            self._connection.reset()
        time.sleep(RETRY_S)

    def tell(self, told: Told) -> None:
        """Hand on what the node's run says of itself; where nobody listens, show it when the stage changes."""
        before, self.last = self.last, told
        hand_on(self.node, before, told)

    def say(self, words: str) -> None:
        """Show one line of the node's."""
        show(self.node, words)


@functools.cache
def script_text(name: str) -> str:
    """Return what a script of the role holds."""
    return (FILES / name).read_text(encoding="utf-8")


def why_refused(script: str, told: str, on_node: str) -> str:
    """Return one sentence for what a script of the role said that failed; `on_node`: the run's directory there."""
    if "No space left on device" in told:
        return (
            f"No space left on device: {on_node} on the node cannot be written to. Make room, or set "
            "benchmark_work_dir to a larger disk."
        )
    return f"{script} failed on the node: {' '.join(told.split())[-300:]}"


def start_words(order: RunOrder) -> tuple[str, str]:
    """Return what start.sh is told besides where the run lies: the environment's directory and the time limit."""
    settings = order.resolved.settings
    return settings.python_env_dir, str(order.limit_s or settings.benchmark_timeout_s)


def start_input(place: Path, variables: Mapping[str, Any]) -> str:
    """Return what start.sh reads: the secrets among a node's variables, in a line that may be empty, and the order."""
    return f"{secrets_of(variables).line()}\n{(place / ORDER).read_text(encoding='utf-8')}"


def look_s(count: int) -> int:
    """Return how long one look at each of `count` nodes may wait there, in seconds."""
    return min(max(LOOK_S[0], math.ceil(LOOK_S_PER_NODE * count)), LOOK_S[1])


def hand_on(node: str, before: Told | None, told: Told) -> None:
    """Hand on what a node's run says of itself; where nobody listens, show it when the stage changes."""
    if live_channel.channel is not None:
        live_channel.channel.send(node, told)
    elif before is None or before.state != told.state:
        show(node, describe(told))


def show(node: str, words: str) -> None:
    """Show one line of a node's."""
    Display().display(f"{time.strftime('%H:%M:%S')} {node}: {words}")
