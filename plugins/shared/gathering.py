"""Start the nodes' runs, gather them for a start that all keep, bring home what they measured: one process for all.

A worker for each node would cost the controller a process of some megabytes that only waits, and where there are more
nodes than forks, those that wait would keep others from being told.
"""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from leader import require_leader
from run_action import COMPLETED
from speaking import Speaker

from benchmark.progress import Told, parse

RETRY_S = 3
# A node that has said nothing for so long, beyond what it was told to wait, is as good as gone.
SILENCE_S = 60
# Round trips to a node's clock: the shortest tells. Of so many nodes at once: more would wait for each other here.
TRIPS, CLOCKS_AT_ONCE = 5, 8
# Nodes that are called for the first time at once: a handshake takes both ends a tenth of a second of processor time.
CALLS_AT_ONCE = 64
# How long a node is waited for that is looked at when all others have answered: it may have a task of its own.
LAST_S = 10
# How long telling all is tried out at most.
TRIAL_S = 5.0
# What a node may send when it is asked for what it measured, and the files in KiB for which it is asked: an archive of
# more is not sent in this way (pack.sh), and what takes long to unpack would keep the others waiting.
ARCHIVE_BYTES = 1_000_000
ARCHIVE_KIB = 20_000
# How long after the start a node that could not be told before is still looked for.
LATE_S = 30.0

# What watch.sh and together.sh say of a run that has ended.
END = re.compile("[0-9]{1,3}|vanished|rebooted|removed")


class State(Enum):
    """Where a node is on its way to the start."""

    LOOKING = "it is looked at"
    LOOKED = "it said what it has"
    STARTING = "its run is being started"
    WAITING = "it is not ready yet"
    READY = "it waits for the others"
    CLOCK = "it does, and its clock is read"
    TURN = "it measures alone"
    TELLING = "it is told when to start"
    TOLD = "it knows"
    MEASURING = "it is asked for its end"
    PACKING = "it sends what it measured"
    CLEANING = "it removes what is here"
    HOME = "what it measured is here, and the node is left clean"
    ENDED = "its run has ended"
    LEFT = "it is left behind"


COMING_HOME = (State.MEASURING, State.PACKING, State.CLEANING)
LOADING = (State.STARTING, State.WAITING)
# Where it has to say something within SILENCE_S.
ASKED = (State.LOOKING, State.STARTING, State.WAITING, State.CLOCK, State.TURN, State.TELLING, State.MEASURING)


@dataclass
class Partner:
    """A node that is spoken with."""

    node: str
    limit_s: float
    """How long after its start it has to be ready."""
    call: Callable[[], Speaker]
    """Opens a conversation, in which its run is started where that is its state."""
    reset: Callable[[], None]
    """Lets go of a connection that broke."""
    state: State = State.WAITING
    started_unix_ns: int = 0
    """When its run had been started, by the controller's clock, as far as is known."""
    refused: str = ""
    """Why its run could not be started."""
    deadline: float = field(init=False)
    """Of what is waited for, of `time.monotonic`."""
    speaker: Speaker | None = None
    looks: list[str] = field(default_factory=list)
    """What the look at it printed."""
    facts: str = ""
    trips: list[tuple[int, int, int]] = field(default_factory=list)
    last: Told | None = None
    lost: str = ""
    """What was said of the connection when it was lost; empty while it is there."""
    sent_ns: int = 0
    answered: bool = False
    packed: list[str] = field(default_factory=list)
    """What pack.sh printed."""
    own_start_ns: int = 0
    """The start by the node's clock."""
    heard: float = field(default_factory=time.monotonic)
    retry_at: float = 0.0

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.limit_s


class Gathering:
    """Speaks with all partners.

    `hears` is given what a run said of itself before, and says now; `says` what a person should know.
    """

    def __init__(
        self,
        partners: Iterable[Partner],
        hears: Callable[[str, Told | None, Told], None],
        says: Callable[[str, str], None],
    ) -> None:
        self.partners = list(partners)
        self._hears, self._says = hears, says
        self._selector = selectors.DefaultSelector()

    def look(self, is_fine: Callable[[Partner], bool]) -> bool:
        """Call every node; tell whether all are fine, by what they say. One that is not, or is silent, ends it."""
        to_call, looking, answered_at = self.partners[::-1], list[Partner](), time.monotonic()
        while to_call or looking:
            while to_call and len(looking) < CALLS_AT_ONCE:
                partner = to_call.pop()
                partner.state = State.LOOKING
                self._open(partner)
                looking.append(partner)
            self._turn()
            answered = [partner for partner in looking if partner.state is not State.LOOKING]
            looking = [partner for partner in looking if partner.state is State.LOOKING]
            fine = [partner for partner in answered if partner.state is State.LOOKED and is_fine(partner)]
            if answered or to_call:
                answered_at = time.monotonic()
            if len(fine) < len(answered) or time.monotonic() > answered_at + LAST_S:
                return False
        return True

    def wait_until_ready(self) -> None:
        """Return once every node is ready, has ended, or is late; runs are started on the way."""
        for partner in self.partners:
            if partner.state is State.LOOKED:
                partner.state, partner.deadline = State.STARTING, time.monotonic() + partner.limit_s
                self._say(partner, "start")
            elif partner.state in LOADING:
                self._open(partner)
        while any(partner.state in LOADING for partner in self.partners):
            self._turn()
            now = time.monotonic()
            for partner in self.partners:
                if partner.state in LOADING and now > partner.deadline:
                    self._leave(partner)

    def read_clocks(self) -> None:
        """Read the clocks of all that are ready: now, since nobody loads any more, whom a round trip would wait for."""
        to_read = [partner for partner in self.partners if partner.state is State.READY]
        while to_read or any(partner.state is State.CLOCK for partner in self.partners):
            while to_read and sum(partner.state is State.CLOCK for partner in self.partners) < CLOCKS_AT_ONCE:
                partner = to_read.pop()
                partner.state = State.CLOCK
                self._ask(partner, "clock")
            self._turn()
            now = time.monotonic()
            for partner in self.partners:
                if partner.state is State.CLOCK and now > partner.deadline:
                    self._leave(partner)

    def take_turns(self, limits_s: Mapping[str, float]) -> list[str]:
        """Let each node that is ready measure alone, one after the other; return those that took too long."""
        late = []
        for partner in self.partners:
            if partner.state is not State.READY:
                continue
            partner.state, partner.deadline = State.TURN, time.monotonic() + limits_s[partner.node]
            self._say(partner, "turn")
            while partner.state is State.TURN:
                self._turn()
                if time.monotonic() > partner.deadline:
                    self._leave(partner)
                    late.append(partner.node)
        return late

    def try_out_s(self) -> float:
        """Return how long it takes to speak to all that are ready and to have heard from each, in seconds."""
        began = time.monotonic()
        asked = [partner for partner in self.partners if partner.state is State.READY and partner.speaker]
        for partner in asked:
            partner.answered = False
            self._say(partner, "clock")
        while not all(one.answered or one.speaker is None for one in asked) and time.monotonic() - began < TRIAL_S:
            self._turn(TRIAL_S)
        return time.monotonic() - began

    def tell(self, starts: dict[str, int], until_unix_ns: int) -> None:
        """Tell each of these nodes its start, by its own clock; one that cannot be told until then is left behind."""
        for partner in self.partners:
            if partner.state is State.READY and partner.node in starts:
                partner.state, partner.own_start_ns = State.TELLING, starts[partner.node]
                self._say(partner, f"go {partner.own_start_ns}")
        while any(partner.state is State.TELLING for partner in self.partners):
            self._turn()
            if time.time_ns() > until_unix_ns:
                break
        for partner in self.partners:
            if partner.state is State.TELLING:
                self._leave(partner)

    def bring_home(self, limits_s: Mapping[str, float], keep: Callable[[Partner], bool]) -> None:
        """Wait for the ends of these nodes' runs, and bring what those left that completed.

        `keep` is given a partner with what it `packed`, and tells whether that is kept here, so that the node may
        remove it. Whatever else comes of a node is left as it is, to those who look at each by itself.
        """
        for partner in self.partners:
            if partner.state is State.TOLD and partner.node in limits_s:
                partner.state, partner.deadline = State.MEASURING, time.monotonic() + limits_s[partner.node]
                self._say(partner, "end")
                if partner.speaker is None:
                    self._lose(partner, "the session ended")
        while any(partner.state in COMING_HOME for partner in self.partners):
            self._turn()
            now = time.monotonic()
            for partner in self.partners:
                if partner.state is State.PACKING and partner.packed and partner.packed[-1] == "packed.":
                    partner.state = State.ENDED
                    if keep(partner):
                        partner.state = State.CLEANING
                        self._ask(partner, "clean")
                elif partner.state is State.CLEANING and now > partner.deadline:
                    self._leave_unclean(partner)
                elif partner.state in COMING_HOME and now > partner.deadline:
                    self._leave(partner)

    def close(self) -> None:
        """Hang up on all."""
        for partner in self.partners:
            self._hang_up(partner)
        self._selector.close()

    def _turn(self, seconds: float = 1.0) -> None:
        """Hear what has been said, or wait so long for it; call again those that were lost."""
        ready = self._selector.select(seconds)
        # Of all that has come, one time: the true one is earlier, and a round trip the shorter for it.
        now_ns, now = time.time_ns(), time.monotonic()
        for key, _ in ready:
            self._hear(key.data, now_ns, now)
        for partner in self.partners:
            if partner.speaker is None:
                if partner.retry_at and now >= partner.retry_at:
                    self._open(partner)
            elif partner.state in ASKED and now - partner.heard > SILENCE_S:
                self._lose(partner, f"took a command and gave no answer within {SILENCE_S} s")
        require_leader()

    def _hear(self, partner: Partner, now_ns: int, now: float) -> None:
        speaker = partner.speaker
        if speaker is None:
            return
        fd = speaker.fd
        partner.heard = now
        for line in speaker.hear():
            self._take(partner, line, now_ns)
        if speaker.ended and partner.speaker is speaker:
            self._selector.unregister(fd)
            speaker.end()
            partner.speaker = None
            if partner.state is State.PACKING:
                partner.state = State.ENDED
            elif partner.state is State.CLEANING:
                self._leave_unclean(partner)
            elif partner.state not in (State.TOLD, State.HOME, State.ENDED, State.LEFT):
                self._lose(partner, speaker.why)

    def _take(self, partner: Partner, line: str, now_ns: int) -> None:
        word, _, rest = line.partition(" ")
        if partner.state is State.PACKING:
            partner.packed.append(line)
        elif partner.state is State.LOOKING:
            partner.looks.append(line)
            if line == "looked.":
                partner.state = State.LOOKED
        elif word == "started" and partner.state is State.STARTING:
            partner.state, partner.started_unix_ns = State.WAITING, now_ns
            partner.deadline = time.monotonic() + partner.limit_s
        elif word == "refused" and partner.state is State.STARTING:
            partner.refused = rest
            self._leave(partner)
        elif word == "running" and partner.state in (State.WAITING, State.TURN, State.MEASURING):
            before, partner.lost, partner.last = partner.last, "", parse(rest)
            if partner.last != before:
                self._hears(partner.node, before, partner.last)
        elif word == "ready":
            partner.lost = ""
            if partner.state is State.WAITING:
                partner.state, partner.facts = State.READY, rest
            elif partner.state is State.CLOCK:
                self._say(partner, "clock")
            elif partner.state is State.TURN:
                self._say(partner, "turn")
            elif partner.state is State.TELLING:
                self._say(partner, f"go {partner.own_start_ns}")
            elif partner.state is State.MEASURING:
                self._say(partner, "end")
        elif word == "clock":
            partner.answered = True
            if partner.state is State.CLOCK:
                # What is no time, or none with nanoseconds, tells nothing.
                told = int(rest) if rest.isdecimal() and len(rest) <= 19 else 0
                partner.trips.append((partner.sent_ns, told, now_ns))
                if len(partner.trips) < TRIPS:
                    self._say(partner, "clock")
                else:
                    partner.trips = [trip for trip in partner.trips if trip[1]]
                    partner.state = State.READY
        elif word == "over" and partner.state is State.TURN:
            partner.state = State.READY
        elif word == "told" and partner.state is State.TELLING:
            partner.state = State.TOLD
        elif word == "ended" and partner.state is State.MEASURING:
            self._ended(partner, *rest.partition(" ")[::2])
        elif word == "cleaned" and partner.state is State.CLEANING:
            partner.state = State.HOME
        elif partner.state not in (State.TOLD, State.LEFT, State.HOME) and (END.fullmatch(line)):
            partner.state = State.ENDED

    def _ended(self, partner: Partner, exit_code: str, kib: str) -> None:
        partner.state = State.ENDED
        if exit_code in COMPLETED and kib.isdecimal() and len(kib) < 10 and int(kib) <= ARCHIVE_KIB and partner.speaker:
            partner.state = State.PACKING
            partner.speaker.expect(ARCHIVE_BYTES)
            self._ask(partner, "pack")

    def _ask(self, partner: Partner, line: str) -> None:
        """Ask for what is done in a moment, or not here."""
        partner.deadline = time.monotonic() + SILENCE_S
        self._say(partner, line)

    def _say(self, partner: Partner, line: str) -> None:
        if partner.speaker:
            partner.sent_ns, partner.heard = time.time_ns(), time.monotonic()
            partner.speaker.say(line)

    def _open(self, partner: Partner) -> None:
        partner.retry_at, partner.heard = 0.0, time.monotonic()
        partner.speaker = partner.call()
        self._selector.register(partner.speaker.fd, selectors.EVENT_READ, partner)

    def _lose(self, partner: Partner, why: str) -> None:
        self._hang_up(partner)
        partner.lost = why
        if partner.state in (State.LOOKING, State.LOOKED, State.STARTING):
            # A moment ago it could be reached, and nothing is lost that was measured: the others need not wait for it.
            self._leave(partner)
            return
        self._says(partner.node, "SSH connection lost, looking for it again; the run goes on")
        partner.reset()
        partner.retry_at = time.monotonic() + RETRY_S

    def _leave(self, partner: Partner) -> None:
        partner.state, partner.retry_at = State.LEFT, 0.0
        self._hang_up(partner)

    def _leave_unclean(self, partner: Partner) -> None:
        self._hang_up(partner)
        partner.state = State.HOME
        self._says(partner.node, "what it measured is here, and could not be removed there")

    def _hang_up(self, partner: Partner) -> None:
        if partner.speaker is not None:
            if partner.speaker.fd >= 0:
                self._selector.unregister(partner.speaker.fd)
            partner.speaker.end()
            partner.speaker = None
