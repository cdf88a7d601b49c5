"""One node's run, from its start to its fetched files: the requests of `measure`, in their order."""

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
# Allowed after the node's own time limit: 30 s until SIGKILL, and time to write the result.
GRACE_S = 60
# A run is asked to stop, and killed ten seconds later.
STOP_S = 60
# Round trips to a node's clock: the shortest counts.
TRIPS = 5
# Exit codes of a run that completed.
COMPLETED = ("0", "1")
REMOVED = "removed"
# Precedes the owner of a directory that is not our run.
FOREIGN = "foreign"


class RemoteRun:
    """Talks to one node. A lost connection is not a lost run: the controller reconnects.

    `calls` limits how many connections are opened at once; `progress_s`: how often the run reports its progress.
    """

    def __init__(self, node: Node, reports: Reports, calls: asyncio.Semaphore, progress_s: int) -> None:
        self.node, self._reports, self._calls, self._progress_s = node, reports, calls, progress_s
        self.started_unix_ns = 0
        """When its run was started, by the controller's clock; 0: not by this process."""
        self.lost = ""
        """Why the connection was lost; empty while it is up."""
        self.last: Progress | None = None
        """The run's last progress."""
        self.begun = False
        """Whether it was told to measure, and may have results that are not here."""
        self._session: Session | None = None
        self._asked = False

    # The requests of `measure`, in this order.

    async def adopt(self, keep: bool = True) -> bool:
        """Return whether the node has this run, complete or measuring; otherwise set its files aside and remove it.

        Unless `keep`, do that with any run, and stop it first if it goes on.
        """
        state, _, number = (await self._ask("earlier", ANSWER_S, tries=1))[1].strip().partition(" ")
        if state == "nothing":
            return False
        if state == FOREIGN:
            raise NodeError(self._foreign(number))
        if keep and state in (*COMPLETED, "running"):
            now = "is still measuring" if state == "running" else "has completed"
            self._say(f"an earlier attempt {now}: not run again")
            self.begun = True
            return True
        if state in ("waits", "running"):
            self._say("an earlier attempt is waiting for a start that will not come: stopping it")
            await self._ask("stop", STOP_S)
        known = number.isdecimal() and len(number) < 6
        aside = self.node.place / f"{ATTEMPT}{int(number) if known else self.node.order.attempt - 1}"
        aside.mkdir(exist_ok=True)
        if not await self.fetch(into=aside):
            where = f"{self.node.on_node}/{self.node.name}"
            raise NodeError(f"The files of an earlier attempt could not be fetched; look at them: {where}.")
        await self.clean()
        return False

    async def start(self) -> None:
        """Start the run; does nothing if its directory exists already."""
        order = (self.node.place / "order.json").read_text(encoding="utf-8")
        given = f"{self.node.secrets}\n{order}\n".encode()
        # If the connection broke, the run may have started and would go on unseen, so ask once more. Not for longer:
        # the node was reachable a moment ago, no measurement is lost, and the others would have to wait.
        word, why = await self._ask(f"start {len(given)}", ANSWER_S, given, tries=2)
        if word == "refused":
            raise NodeError(why_refused("start.sh", why, self.node.on_node))
        self.started_unix_ns = time.time_ns()

    async def until_ready(self, repeat: int, deadline: float) -> str:
        """Return the node's facts once its run is ready for a repeat. Raises TimeoutError, Ended."""
        ready = of_repeat(READY, repeat)
        lock = f"{ready}.lock" if repeat > 1 else "starting.lock"
        return (await self._ask(f"wait {ready} {lock}", deadline - time.monotonic()))[1]

    async def until_there(self, name: str, lock: str, within_s: float) -> str:
        """Return the content of the file `name`, for which the run releases the lock. Raises TimeoutError, Ended."""
        return (await self._ask(f"wait {name} {lock}", within_s))[1]

    async def put(self, name: str, word: str, within_s: float = ANSWER_S) -> None:
        """Write a word into the file that the run waits for. Raises TimeoutError, Ended, Excluded."""
        await self._put(f"{name} {word}", within_s)

    async def read_clock(self, trips: int = TRIPS) -> list[RoundTrip]:
        """Return this many round trips to the node's clock, without those whose answer is not a time in nanoseconds."""
        found = []
        for _ in range(trips):
            # Opening a session would add to the round trip.
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
        """Return how the run ended: its exit code, or how it vanished. Raises TimeoutError."""
        try:
            await self._ask("end", limit_s)
        except Ended as ended:
            return ended.state
        raise NodeError("The node reported that the run ended, but not how.")

    async def fetch(self, tries: int = FETCHES, into: Path | None = None) -> list[str]:
        """Fetch the files; reconnect if the connection breaks, since the results are on the node.

        A failure says where on the node the files are, and how to fetch them.
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
        """Remove the fetched files from the node; failing to remove them does not fail the node."""
        try:
            await self._ask("clean", ANSWER_S, tries=2)
        except (NodeError, Ended, TimeoutError):
            self._say("its results were fetched but not removed from the node: playbooks/clean.yml removes them")

    async def finish(self, state: str) -> None:
        """Fetch the files of a run that ended with `state` and remove them there; raise NodeError if it failed."""
        if state == REMOVED:
            raise NodeError(
                f"{self.node.on_node} is gone from the node: was it removed, or lost in a restart (as /tmp is)? "
                "Nothing could be fetched; set benchmark_work_dir to a directory that survives a restart."
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
        """Stop the run on the node and fetch its files; return whether there was one. Raises Lost."""
        if (await self._ask("stop", STOP_S, tries=1))[0] == "nothing":
            return False
        if await self.fetch():
            await self.clean()
        return True

    async def withdraw(self) -> None:
        """Stop and remove the run, which has measured nothing yet and will be started again. Raises Lost."""
        await self._ask("stop", STOP_S, tries=1)
        await self.clean()
        self.last = None

    async def stop_interrupted(self, interruption: str) -> None:
        """Stop the run and fetch its files; raises NodeError unless it had completed by then."""
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
                f"{interruption}, and the request to stop did not reach the node ({str(lost)[-200:]}): "
                f"{self.node.ends} {self.node.stays}"
            ) from None
        if ended not in COMPLETED:
            raise NodeError(f"{interruption}: it was stopped, and what it had measured was fetched.")

    @property
    def doing(self) -> str:
        """The run's last progress, in words."""
        return describe(self.last) if self.last else "starting"

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # How requests are sent.

    async def _ask(self, request: str, within_s: float, payload: bytes = b"", tries: int = 0) -> tuple[str, str]:
        """Send a request until it is answered, in a new session whenever the last was lost; return the answer.

        All requests may be repeated. Raises TimeoutError after `within_s` seconds; Lost after `tries` attempts (0: as
        many as time allows); Ended if the run has ended.
        """
        deadline, called = time.monotonic() + within_s, 0
        try:
            while True:
                called += 1
                try:
                    # Not wait_for: before Python 3.12 it may return an answer despite a cancellation.
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
                        doing = "trying again" if tries else "reconnecting; the run goes on"
                        self._say(f"SSH connection lost, {doing}")
                    await asyncio.sleep(RETRY_S)
        except (TimeoutError, asyncio.CancelledError, Refused) as error:
            # In the middle of an answer.
            self.close()
            if isinstance(error, TimeoutError) and tries:
                raise Lost(f"accepted a command but gave no answer within {within_s:g} s") from None
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
            # A session ends with its standard input; if a disk hangs there, with this limit.
            limit_s = node.limit_s + node.busy_s + GRACE_S + TRANSFER_S
            self._session = await call(node.ssh, program(), words, limit_s, self._calls)
        return self._session

    async def _lose(self, lost: Lost) -> None:
        self.close()
        self.lost = str(lost)
        await self.node.ssh.reset()

    def _say(self, words: str) -> None:
        self._reports.message(self.node.name, words)
