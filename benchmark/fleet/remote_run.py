"""One node's run, from its start to its fetched files: what `measure` asks of it, in the order in which it does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmark.fleet.errors import Ended, Excluded, Lost, NodeError, Refused
from benchmark.fleet.fetch import TRANSFER_S, bring
from benchmark.fleet.node import Node, Reports
from benchmark.fleet.programs import program, why_refused
from benchmark.fleet.rendezvous import RoundTrip
from benchmark.fleet.session import ANSWER_S, Session, call
from benchmark.fleet.ssh import unreachable
from benchmark.fleet.unpack import why_failed
from benchmark.progress import Progress, describe, parse
from benchmark.rundir import ATTEMPT, GO, READY, TURN, TURN_OVER, of_repeat

RETRY_S = 3
FETCHES = 3
# After the node's own time limit: 30 s until SIGKILL, and time to write the result.
GRACE_S = 60
# A run is stopped within ten seconds, and killed.
STOP_S = 60
# Round trips to a node's clock: the shortest tells.
TRIPS = 5
# Exit codes of a run that completed.
COMPLETED = ("0", "1")
REMOVED = "removed"
# And what is said before whose a directory is that is no run of ours.
FOREIGN = "foreign"


class RemoteRun:
    """Speaks with one node. A lost connection is not a lost run: it is looked for again.

    `calls` limits how many nodes are called at once, `progress_s` says how often a run is to say how far it is.
    """

    def __init__(self, node: Node, reports: Reports, calls: asyncio.Semaphore, progress_s: int) -> None:
        self.node, self._reports, self._calls, self._progress_s = node, reports, calls, progress_s
        self.started_unix_ns = 0
        """When its run had been started, by the controller's clock; 0: not by this process."""
        self.lost = ""
        """What was said of the connection when it was lost; empty while it is there."""
        self.last: Progress | None = None
        """What the run said last."""
        self.begun = False
        """Whether it was told to measure, and may have something that is not here."""
        self._session: Session | None = None
        self._asked = False

    # What `measure` asks, in this order.

    async def adopt(self, keep: bool = True) -> bool:
        """Return whether what is on the node is this run's, complete or measuring; keep and remove what is neither.

        Not to `keep`: a run that goes on is ended, and what it left put aside too.
        """
        state, _, number = (await self._ask("earlier", ANSWER_S, tries=1))[1].strip().partition(" ")
        if state == "nothing":
            return False
        if state == FOREIGN:
            raise NodeError(self._foreign(number))
        if keep and state in (*COMPLETED, "running"):
            now = "still measures" if state == "running" else "completed here"
            self._say(f"an earlier attempt {now}: not run again")
            self.begun = True
            return True
        if state in ("waits", "running"):
            self._say("an earlier attempt waits for a start that never comes: stopping it")
            await self._ask("stop", STOP_S)
        known = number.isdecimal() and len(number) < 6
        aside = self.node.place / f"{ATTEMPT}{int(number) if known else self.node.order.attempt - 1}"
        aside.mkdir(exist_ok=True)
        if not await self.fetch(into=aside):
            where = f"{self.node.on_node}/{self.node.name}"
            raise NodeError(f"What an earlier attempt left could not be brought back; look at it: {where}.")
        await self.clean()
        return False

    async def start(self) -> None:
        """Start the run: whoever finds its directory made has nothing to start."""
        order = (self.node.place / "order.json").read_text(encoding="utf-8")
        given = f"{self.node.secrets}\n{order}\n".encode()
        # Where the connection broke it may have started: it is asked once more, or would go on there unseen. But it was
        # reached a moment ago, and nothing is lost that was measured: the others need not wait for it for long.
        word, why = await self._ask(f"start {len(given)}", ANSWER_S, given, tries=2)
        if word == "refused":
            raise NodeError(why_refused("start.sh", why, self.node.on_node))
        self.started_unix_ns = time.time_ns()

    async def until_ready(self, repeat: int, deadline: float) -> str:
        """Return what the node says it is, once its run is ready for a repeat. Raises TimeoutError, Ended."""
        ready = of_repeat(READY, repeat)
        lock = f"{ready}.lock" if repeat > 1 else "starting.lock"
        return (await self._ask(f"wait {ready} {lock}", deadline - time.monotonic()))[1]

    async def until_there(self, name: str, lock: str, within_s: float) -> str:
        """Return what the run writes into that file, before which it releases the lock. Raises TimeoutError, Ended."""
        return (await self._ask(f"wait {name} {lock}", within_s))[1]

    async def put(self, name: str, word: str, within_s: float = ANSWER_S) -> None:
        """Put a word where the run waits for it. Raises TimeoutError, Ended, Excluded."""
        await self._put(f"{name} {word}", within_s)

    async def read_clock(self, trips: int = TRIPS) -> list[RoundTrip]:
        """Return so many round trips to the node's clock; of what is no time in nanoseconds there is none."""
        found = []
        for _ in range(trips):
            # A session that has to be opened first would be part of the way.
            await self._open()
            sent_ns = time.time_ns()
            word, reading = await self._ask("clock", ANSWER_S)
            received_ns = time.time_ns()
            if word == "clock" and reading.isdecimal() and len(reading) <= 19:
                found.append((sent_ns, int(reading), received_ns))
        return found

    async def measure_alone(self, limit_s: float) -> None:
        """Let the node measure alone, and return once it has. Raises TimeoutError, Ended."""
        self.begun, deadline = True, time.monotonic() + limit_s
        await self._put(TURN, limit_s)
        await self._ask(f"wait {TURN_OVER} alone.lock", deadline - time.monotonic())

    async def go(self, repeat: int, unix_ns: int, within_s: float) -> None:
        """Tell the node when to start, by its own clock. Raises TimeoutError, Ended."""
        self.begun = True
        await self._put(f"{of_repeat(GO, repeat)} {unix_ns}", within_s)

    async def until_end(self, limit_s: float) -> str:
        """Return how the run ended: its exit code, or how it is gone. Raises TimeoutError."""
        try:
            await self._ask("end", limit_s)
        except Ended as ended:
            return ended.state
        raise NodeError("The node said that the run ended, but not how.")

    async def fetch(self, tries: int = FETCHES, into: Path | None = None) -> list[str]:
        """Bring the files; a connection that breaks is tried again, for what was measured is on the node.

        A failure says where on the node that is, and how to get it.
        """
        for left in reversed(range(tries)):
            try:
                return await bring(await self._open(), into or self.node.place, self.node.on_node)
            except Lost as lost:
                await self._lose(lost)
                if not left:
                    raise NodeError(f"{unreachable(str(lost), self.node.ssh.address)} {self.node.stays}") from lost
                self._say("SSH connection lost while fetching, trying again")
                await asyncio.sleep(RETRY_S)
            except NodeError as error:
                raise NodeError(f"{error} {self.node.stays}") from error
            except BaseException:
                # In the middle of an answer.
                self.close()
                raise
        return []

    async def clean(self) -> None:
        """Remove on the node what lies here; that it cannot be removed takes nothing from what was measured."""
        try:
            await self._ask("clean", ANSWER_S, tries=2)
        except (NodeError, Ended, TimeoutError):
            self._say("what it measured is here, and could not be removed there: playbooks/clean.yml does it")

    async def finish(self, state: str) -> None:
        """Fetch the files of a run that ended so and remove them there; raise NodeError where it did not complete."""
        if state == REMOVED:
            raise NodeError(
                f"{self.node.on_node} is gone from the node: did it restart, and does that not outlive a restart "
                "(as /tmp), or was it removed? Nothing could be fetched; set benchmark_work_dir to a directory that "
                "stays."
            )
        if state.startswith(FOREIGN):
            raise NodeError(self._foreign(state.removeprefix(FOREIGN).strip()))
        names = await self.fetch()
        if names and state.isdigit():
            await self.clean()
        if reason := why_failed(state, self.node.place, self.node.limit):
            raise NodeError(reason)

    def _foreign(self, whose: str) -> str:
        return f"{self.node.on_node}/{self.node.name} on the node is a run of {whose[:300]}: it was left alone."

    async def stop(self) -> bool:
        """Stop the run on the node, and bring its files; return whether there was one. Raises Lost."""
        if (await self._ask("stop", STOP_S, tries=1))[0] == "nothing":
            return False
        if await self.fetch():
            await self.clean()
        return True

    async def withdraw(self) -> None:
        """Stop the run, which has measured nothing yet, and remove it: it is to be started again. Raises Lost."""
        await self._ask("stop", STOP_S, tries=1)
        await self.clean()
        self.last = None

    async def stop_interrupted(self, interruption: str) -> None:
        """Stop the run and bring what it measured; raises NodeError unless it had completed by then."""
        if not self._asked:
            raise NodeError(f"{interruption} before it measured.")
        self._say("stopping it")
        try:
            if (await self._ask("stop", STOP_S, tries=1))[0] == "nothing":
                raise NodeError(f"{interruption} before it measured.")
            ended = await self.until_end(STOP_S)
            if await self.fetch(tries=1):
                await self.clean()
        except TimeoutError:
            raise NodeError(f"{interruption}, and it did not end. {self.node.stays}") from None
        except Lost as lost:
            raise NodeError(
                f"{interruption}, and the node could not be asked to stop ({str(lost)[-200:]}): {self.node.ends} "
                f"{self.node.stays}"
            ) from None
        if ended not in COMPLETED:
            raise NodeError(f"{interruption}: it was stopped, and what it had measured was fetched.")

    @property
    def doing(self) -> str:
        """In words, what the run said of itself last."""
        return describe(self.last) if self.last else "starting"

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # How it is asked.

    async def _ask(self, request: str, within_s: float, payload: bytes = b"", tries: int = 0) -> tuple[str, str]:
        """Send a request until it is answered, each time in a new session where the last was lost; return the answer.

        All requests may be sent again. Raises TimeoutError after `within_s` seconds; Lost after so many `tries` (0: as
        many as there is time for); Ended where the run has.
        """
        deadline, called = time.monotonic() + within_s, 0
        try:
            while True:
                called += 1
                try:
                    # Not wait_for: before Python 3.12 it may take an interruption for an answer.
                    async with asyncio.timeout(max(0.01, deadline - time.monotonic())):
                        return await self._ask_once(request, payload)
                except Lost as lost:
                    known = self.lost
                    await self._lose(lost)
                    if called == tries:
                        raise
                    if time.monotonic() + RETRY_S > deadline:
                        raise TimeoutError from lost
                    if not known:
                        doing = "trying again" if tries else "looking for it again; the run goes on"
                        self._say(f"SSH connection lost, {doing}")
                    await asyncio.sleep(RETRY_S)
        except (TimeoutError, asyncio.CancelledError, Refused) as error:
            # In the middle of an answer.
            self.close()
            if isinstance(error, TimeoutError) and tries:
                raise Lost(f"took a command and gave no answer within {within_s:g} s") from None
            raise

    async def _put(self, words: str, within_s: float) -> None:
        word, why = await self._ask(f"put {words}", within_s)
        if word == "refused":
            raise Excluded(why_refused("converse.sh", why, self.node.on_node))

    async def _ask_once(self, request: str, payload: bytes) -> tuple[str, str]:
        session = await self._open()
        session.send(request)
        if payload:
            session.send_bytes(payload)
        while True:
            word, rest = await session.receive(ANSWER_S)
            self.lost = ""
            if word == "progress":
                before, self.last = self.last, parse(rest)
                if self.last != before:
                    self._reports.progress(self.node.name, before, self.last)
            elif word == "ended":
                raise Ended(rest.strip())
            else:
                return word, rest

    async def _open(self) -> Session:
        self._asked = True
        if self._session is None:
            node, words = self.node, self.node.given(self._progress_s)
            # It ends with its standard input; should a disk hang there, with this.
            limit_s = node.limit_s + node.busy_s + GRACE_S + TRANSFER_S
            self._session = await call(node.ssh, program(), words, limit_s, self._calls)
        return self._session

    async def _lose(self, lost: Lost) -> None:
        self.close()
        self.lost = str(lost)
        await self.node.ssh.reset()

    def _say(self, words: str) -> None:
        self._reports.message(self.node.name, words)
