"""The process that watches a node during a measurement: `python -m benchmark.node.watch.sampler`, see telemetry.py.

A process of its own, so that it does not take the interpreter lock that engine and client share; and small: no torch,
no pydantic. It ends when its standard input is closed, as the end of the run does in any case.

Standard input, one line each: `idle` (begin to watch, before the window), `start NS` and `end NS` (the window, on the
clock of the samples). Standard output: `watching` after the first tick, and after `end` one JSON object with what
telemetry.jsonl does not contain.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from benchmark.node.watch.nvml import MIB, Driver, NoDriver, driver

INTERVAL_NS = 100_000_000
# The kernel counts CPU time in steps of 10 ms: over a shorter time a load means nothing.
LEAST_LOAD_NS = 50_000_000
# In ticks. On an H100 reading the energy counter takes 4.4 ms of CPU time, ten times as long as the rest of a tick.
SELDOM = 10
ENERGY_EVERY = 50
RARELY_S = 2
# In these turns: its query returns other values too, some of which take as long as the energy.
TEMPERATURE_EVERY = 3
# Lines to keep until the window begins: an idle baseline of a minute and a half.
MAX_KEPT = 1000
# Six hours with one GPU; in a longer run the figures are based on this part.
MAX_BYTES = 64 * 2**20
MAX_VISITORS = 20
GPU_TEMPERATURE = 0
PCIE_TX, PCIE_RX = 0, 1


@dataclass
class Board:
    """One GPU. A query that it does not answer the first time is not repeated."""

    asked: Driver
    index: int
    handle: Any
    board: Any
    sliced: bool
    refused: set[str] = field(default_factory=set)
    rare: dict[str, int] = field(default_factory=dict)
    """What the other thread found since the last tick."""
    errors: dict[str, list[int]] = field(default_factory=dict)
    """Kind of ECC error -> its counts, first and last."""
    xid: list[int] = field(default_factory=list)
    pcie_generation: int | None = None
    pcie_width: int | None = None
    tenants: frozenset[int] = frozenset()
    """Processes that computed on it before the window, including this run's."""

    def ask(self, question: str, *words: Any, whole: bool = True) -> Any:
        """Query the whole GPU, or the slice of it that is used."""
        name = f"{question}{words}"
        if name in self.refused:
            return None
        answer = self.asked.ask(question, self.board if whole else self.handle, *words)
        if answer is None:
            self.refused.add(name)
        return answer

    def energy(self) -> int | None:
        """Return the counter in millijoules; a slice has none."""
        return None if self.sliced else self.ask("nvmlDeviceGetTotalEnergyConsumption")

    def look(self, seldom: bool) -> dict[str, Any]:
        """Return the values of every tick, which take a few hundred microseconds; `seldom`: memory too."""
        nvml = self.asked.nvml
        used = self.ask("nvmlDeviceGetUtilizationRates")
        memory = self.ask("nvmlDeviceGetMemoryInfo", whole=False) if seldom else None
        power = None if self.sliced else self.ask("nvmlDeviceGetPowerUsage")
        rare, self.rare = self.rare, {}
        return {
            "index": self.index,
            "utilisation_percent": used and used.gpu,
            "memory_utilisation_percent": used and used.memory,
            "memory_mib": memory and memory.used // MIB,
            "sm_clock_mhz": self.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": self.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            "power_w": None if power is None else power / 1000,
            "temperature_c": self.ask("nvmlDeviceGetTemperature", GPU_TEMPERATURE),
            "throttle_reasons": self.asked.throttle_mask(self.board),
            **rare,
        }

    def look_seldom(self, busy: bool) -> None:
        """Note the values for the final report: the PCIe link of a busy GPU, and errors."""
        nvml = self.asked.nvml
        for kind in ("CORRECTED", "UNCORRECTED"):
            count = self.ask(
                "nvmlDeviceGetTotalEccErrors", getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}"), nvml.NVML_VOLATILE_ECC
            )
            if count is not None:
                self.errors[kind.lower()] = [self.errors.get(kind.lower(), [count])[0], count]
        if busy:
            self.pcie_generation = self.ask("nvmlDeviceGetCurrPcieLinkGeneration")
            self.pcie_width = self.ask("nvmlDeviceGetCurrPcieLinkWidth")

    def look_rarely(self, temperature: bool) -> None:
        """Query slow values: the driver observes each PCIe counter for 20 ms."""
        names = (("pcie_tx_kib_s", PCIE_TX), ("pcie_rx_kib_s", PCIE_RX))
        found = {name: self.ask("nvmlDeviceGetPcieThroughput", which) for name, which in names}
        found["memory_temperature_c"] = self._memory_temperature() if temperature else None
        self.rare = {name: value for name, value in found.items() if value is not None}

    def _memory_temperature(self) -> int | None:
        values = self.ask("nvmlDeviceGetFieldValues", (self.asked.nvml.NVML_FI_DEV_MEMORY_TEMP,))
        return values[0].value.uiVal if values and values[0].nvmlReturn == 0 else None

    def note_tenants(self) -> None:
        """Note who computes on it before the window: in a container, our processes may have unknown numbers."""
        self.tenants = frozenset(self._computing())

    def _computing(self) -> dict[int, Any]:
        found = self.ask("nvmlDeviceGetComputeRunningProcesses", whole=False)
        return {process.pid: process for process in found or ()}

    def _foreign_processes(self) -> list[dict[str, Any]]:
        """Return processes that have appeared since, compute on it and do not belong to this run."""
        new = [process for pid, process in self._computing().items() if pid not in self.tenants]
        return [self.asked.describe_process(one) for one in new if not descends(one.pid, os.getppid())][:MAX_VISITORS]

    def end(self) -> dict[str, Any]:
        """Return the GPU's final report."""
        new = {f"ecc_{kind}": last - first for kind, (first, last) in self.errors.items() if last >= first}
        link = {"pcie_generation": self.pcie_generation, "pcie_width": self.pcie_width}
        return {"index": self.index, "xid": self.xid, "foreign_processes": self._foreign_processes(), **link, **new}


def descends(pid: int, ancestor: int) -> bool:
    """Return whether a process is another one or its descendant; False if it is gone."""
    while pid > 1 and pid != ancestor:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
            pid = int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return pid == ancestor


class Host:
    """CPU, memory and network of the machine, through psutil."""

    def __init__(self) -> None:
        import psutil

        self.psutil = psutil
        self.asked_ns: int | None = None

    def look(self) -> dict[str, Any]:
        """Return the load since the last tick that reported it; empty the first time, and if that was just before."""
        now_ns, asked_ns = time.monotonic_ns(), self.asked_ns
        if asked_ns is not None and now_ns - asked_ns < LEAST_LOAD_NS:
            return {}
        self.asked_ns, percent = now_ns, self.psutil.cpu_percent()
        # The first value covers nothing, or the time in which the model was loaded.
        return {} if asked_ns is None else {"cpu_percent": percent}

    def look_seldom(self) -> dict[str, Any]:
        """Return values that change slowly, or are counters."""
        cards = [card for name, card in self.psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return {
            "memory_mib": self.psutil.virtual_memory().used // MIB,
            "network_rx_bytes": sum(card.bytes_recv for card in cards),
            "network_tx_bytes": sum(card.bytes_sent for card in cards),
        }


class Sampler:
    """Takes ticks, and writes them once the beginning of the window is known."""

    def __init__(self, path: str, boards: list[Board], host: Host | None, notes: list[str]) -> None:
        self.boards, self.host, self.notes = boards, host, notes
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self.kept: list[dict[str, Any]] = []
        self.start_ns: int | None = None
        self.left = MAX_BYTES
        self.ticks = 0
        self.cpu_s = self.began_s = 0.0

    def tick(self, marks: bool = False) -> None:
        """Sample everything once; `marks`: at an end of the window, where the energy is needed."""
        at_ns = time.monotonic_ns()
        seldom = marks or self.ticks % SELDOM == 0
        energies = [board.energy() if marks or self.ticks % ENERGY_EVERY == 0 else None for board in self.boards]
        tick: dict[str, Any] = {"t_ns": at_ns, **(self.host.look() if self.host else {})}
        tick["gpus"] = [
            {**board.look(seldom), "energy_mj": energy} for board, energy in zip(self.boards, energies, strict=True)
        ]
        if seldom:
            tick |= self.host.look_seldom() if self.host else {}
            for board, seen in zip(self.boards, tick["gpus"], strict=True):
                board.look_seldom(bool(seen["utilisation_percent"]))
        self.ticks += 1
        self.kept = [*self.kept[-MAX_KEPT:], tick]
        self._write()

    def start(self, at_ns: int) -> None:
        """Set the beginning of the window, and write the ticks before it."""
        self.start_ns = at_ns
        for board in self.boards:
            board.errors.clear()
        self.cpu_s, self.began_s = time.process_time(), time.monotonic()
        self.tick(marks=True)

    def end(self) -> dict[str, Any]:
        """Take the last tick; return what the lines do not contain."""
        self.tick(marks=True)
        return {
            "cpu_s": time.process_time() - self.cpu_s,
            "span_s": time.monotonic() - self.began_s,
            "gpus": [board.end() for board in self.boards],
            "notes": self.notes,
        }

    def _write(self) -> None:
        if self.start_ns is None:
            return
        lines = b""
        for tick in self.kept:
            tick["t_ns"] -= self.start_ns
            reported = {name: value for name, value in tick.items() if value is not None}
            reported["gpus"] = [
                {name: value for name, value in gpu.items() if value is not None} for gpu in tick["gpus"]
            ]
            lines += json.dumps(reported, separators=(",", ":")).encode() + b"\n"
        self.kept = []
        self.left -= len(lines)
        if self.left <= 0:
            self._full(f"telemetry.jsonl reached {MAX_BYTES >> 20} MiB: later samples were not kept")
            return
        try:
            while lines:
                lines = lines[os.write(self.file, lines) :]
        except OSError as error:
            self.left = 0
            self._full(f"telemetry.jsonl could not be written: {error.strerror}")

    def _full(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def watch_rarely(asked: Driver, boards: list[Board], notes: list[str]) -> None:
    """Wait for the driver's events and query slow values, every two seconds, forever: runs in its own thread."""
    events = asked.ask("nvmlEventSetCreate")
    kind = getattr(asked.nvml, "nvmlEventTypeXidCriticalError", 0)
    for board in boards:
        try:
            asked.nvml.nvmlDeviceRegisterEvents(board.board, kind, events)
        except (asked.nvml.NVMLError, AttributeError) as error:
            events = None
            notes.append(f"XID errors were not watched: {error}")
            break
    for turn in itertools.count():
        until = time.monotonic() + RARELY_S
        for board in boards:
            board.look_rarely(temperature=turn % TEMPERATURE_EVERY == 0)
        while (left_s := until - time.monotonic()) > 0:
            event = asked.ask("nvmlEventSetWait_v2", events, int(left_s * 1000)) if events is not None else None
            if event is None:
                time.sleep(max(0.0, min(left_s, until - time.monotonic())))
                continue
            for board in boards:
                if asked.ask("nvmlDeviceGetUUID", board.board) == asked.ask("nvmlDeviceGetUUID", event.device):
                    board.xid.append(event.eventData)


def watch(path: str, boards: list[Board], notes: list[str], asked: Driver | None) -> None:
    """Take ticks as standard input says, until it is closed."""
    host = None
    try:
        host = Host()
    except ImportError:
        notes.append("psutil is not installed: processor, memory and network were not watched")
    # Unbuffered: select would not see what was read ahead.
    reported = FileIO(sys.stdin.fileno(), closefd=False)
    sampler = Sampler(path, boards, host, notes)
    due_ns: int | None = None
    while True:
        word, _, number = wait(reported, due_ns).partition(" ")
        if word == "closed":
            return
        if word == "end":
            print(json.dumps(sampler.end()), flush=True)
            return
        if word == "start":
            sampler.start(int(number))
        else:
            sampler.tick()
            if sampler.ticks == 1:
                print("watching", flush=True)
        if due_ns is None and asked is not None and boards:
            for board in boards:
                board.note_tenants()
            threading.Thread(target=watch_rarely, args=(asked, boards, notes), daemon=True).start()
        due_ns = max((due_ns or 0) + INTERVAL_NS, time.monotonic_ns())


def wait(reported: FileIO, due_ns: int | None) -> str:
    """Return the next line before a time (None: no limit), empty if there is none, or "closed"."""
    patience_s = None if due_ns is None else max(0, due_ns - time.monotonic_ns()) / 1e9
    if not select.select([reported], [], [], patience_s)[0]:
        return ""
    return reported.readline().decode().strip() or "closed"


def main() -> None:
    """Watch the GPUs with the indexes and UUIDs in the JSON of the second argument; write to the first."""
    # Signals go to the run's whole process group: this process must stay for the end of the window.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path, gpus = sys.argv[1], json.loads(sys.argv[2])
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        asked, boards = None, []
        if gpus:
            try:
                asked = stack.enter_context(driver())
            except NoDriver as reason:
                notes.append(f"the GPUs were not watched: {reason}")
        for index, uuid in gpus if asked else ():
            handle = asked.handle(uuid) if asked else None
            if asked is None or handle is None:
                notes.append(f"GPU {index} was not watched: the driver does not know its UUID")
                continue
            board = asked.board(handle)
            boards.append(Board(asked, index, handle, board, sliced=board is not handle))
        watch(path, boards, notes, asked)


if __name__ == "__main__":
    main()
