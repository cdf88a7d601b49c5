"""Several nodes that serve one copy of a model: the head is measured like any node, the members compute their parts.

Before anything is loaded, each node listens for the others and tests whether it can reach them. Until then they
communicate through the controller, in files: see `benchmark/fleet/groups.py`.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import psutil
from pydantic import TypeAdapter

from benchmark.files import write_atomic
from benchmark.node.interfaces import Demands, Engine, EngineBroken
from benchmark.node.lock import Lock
from benchmark.node.ports import hold, unreached
from benchmark.node.provisioned import Engine as Provisioned
from benchmark.node.request import RunRequest
from benchmark.node.run import NodeRun
from benchmark.node.serving.process import ServerProcess
from benchmark.node.serving.provisioned import python_version
from benchmark.node.together import wait_for_word
from benchmark.node.watching import WatchingRun
from benchmark.provisioned import ENGINES
from benchmark.provisioned_engine import ProvisionedEngine
from benchmark.records import EngineInfo, Environment, GroupMember, GroupPart, NodeResult, ServerPlace, Window
from benchmark.rundir import LISTENS, LOAD, MEASURED, TRIED, TRY

# These tell gloo and NCCL which interface leads to the others: by default gloo uses the address of the host's own name,
# which on many hosts is loopback.
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_PLACES = TypeAdapter(tuple[ServerPlace, ...])
_REASONS = TypeAdapter(dict[str, str])
_WINDOWS = TypeAdapter(list[Window])


def run_part(request: RunRequest, part: GroupPart) -> NodeResult:
    """Measure the copy, or compute for its head, and return this node's result: see `benchmark.node.run`."""
    return (HeadRun if part.leads else MemberRun)(request, part).run()


class HeadRun(NodeRun):
    """Measures the copy that this node and the others of its group serve."""

    def __init__(self, request: RunRequest, part: GroupPart) -> None:
        super().__init__(request)
        self.part = part
        self.meeting = Meeting(request, part, Lock(request.directory / f"{LISTENS}.lock"))
        self.measured = Lock(request.directory / f"{MEASURED}.lock")

    def _meet(self) -> None:
        with self.open.stage("environment", reported="joining its group"):
            self.meeting.run(self.open.result.environment)

    def _equip(self, demands: Demands, engine: Engine) -> None:
        super()._equip(demands, engine)
        engine.group = self.part

    def _end(self) -> None:
        # The members' parts of the engine may end with the head's, which is not their fault.
        result = self.open.result
        windows = [window for window in (result.window, *(one.window for one in result.repeats)) if window]
        write_atomic(self.request.directory / MEASURED, _WINDOWS.dump_json(windows).decode())
        self.measured.release()

    def _details(self) -> dict[str, Any]:
        return {"group": self.part.name, "nodes": [place.node for place in self.part.places]}


class MemberRun(WatchingRun):
    """Computes its part of a copy that is measured at its head."""

    loads = "loading with its group"
    waits = "ready to compute for its group"
    works = "computing for its group"

    def __init__(self, request: RunRequest, part: GroupPart) -> None:
        super().__init__(request)
        self.part = part

    def _join(self, environment: Environment) -> None:
        with self.open.stage("environment", reported="joining its group"):
            Meeting(self.request, self.part, self.listening).run(environment)

    def _load(self, stack: ExitStack) -> Callable[[], None]:
        profile = self.profile
        engine = Provisioned(
            ENGINES[profile.engine], self.request.settings, profile.generation, dict(profile.engine_options)
        )
        engine.group = self.part
        start = engine.command()
        print(f"Starting {engine.called}: {start}", flush=True)
        server = ServerProcess(start, self.request.directory, name=engine.called, secret=self.request.secrets.values)
        stack.callback(server.stop)
        details = {"start": start, "group": self.part.name, "rank": self.part.rank}
        self.open.update(engine=EngineInfo(name=engine.name, replicas=1, details=details))
        return partial(_require_running, server)


class Meeting:
    """A node of a group before anything is loaded: listens for the others, and tests whether it can reach them."""

    def __init__(self, request: RunRequest, part: GroupPart, listening: Lock) -> None:
        self._request, self._part, self._listening = request, part, listening
        self._trying = Lock(request.directory / f"{TRIED}.lock")

    def run(self, environment: Environment | None) -> None:
        """Return once all have tested, so that the engine may load. Raises SetupError if the node cannot listen."""
        directory, wait_s = self._request.directory, self._request.wait_s or 0
        own = self._part.own
        with hold(own) as listener, socket.create_server((own.host, 0), family=listener.family) as other:
            member = GroupMember(port=other.getsockname()[1], software=self._software(environment))
            write_atomic(directory / LISTENS, member.model_dump_json())
            self._listening.release()
            wait_for_word(directory / TRY, wait_s)
            places = _PLACES.validate_json((directory / TRY).read_text(encoding="utf-8"))
            write_atomic(directory / TRIED, _REASONS.dump_json(_unreached(places)).decode())
            self._trying.release()
            wait_for_word(directory / LOAD, wait_s)
        show_the_way(self._engine, own.host)

    @property
    def _engine(self) -> ProvisionedEngine:
        return ENGINES[self._request.resolved.profile.engine]

    def _software(self, environment: Environment | None) -> dict[str, str]:
        """Return what must be the same on all nodes of a group."""
        found = {"Python": python_version(self._engine, self._request.settings)}
        if environment is not None:
            found |= {**environment.server_packages, "the model": environment.model_sha256}
        return {name: version for name, version in found.items() if version}


def show_the_way(engine: ProvisionedEngine, host: str) -> None:
    """Set the address and the interface at which the others of its group reach this node, in the engine's environment.

    What the user has set is kept.
    """
    address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    if engine.address_variable:
        os.environ.setdefault(engine.address_variable, address)
    if interface := _interface_of(address):
        for variable in INTERFACE_VARIABLES:
            os.environ.setdefault(variable, interface)


def _interface_of(address: str) -> str:
    """Return the network interface with this address; empty if there is none, or it cannot be determined."""
    wanted = ipaddress.ip_address(address)
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    for name, addresses in interfaces.items():
        for one in addresses:
            if one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            own = ipaddress.ip_address(one.address.partition("%")[0])
            # All of 127.0.0.0/8 is this machine, although only one address of it is listed.
            if own == wanted or (own.is_loopback and wanted.is_loopback):
                return name
    return ""


def _unreached(places: Sequence[ServerPlace]) -> dict[str, str]:
    """Return the nodes that this one cannot connect to, each with ports and reasons; a node has several ports."""
    found: dict[str, str] = {}
    for place in places:
        if why := unreached([place]).get(place.node):
            found[place.node] = "; ".join(filter(None, [found.get(place.node), f"port {place.port}: {why}"]))
    return found


def _require_running(server: ServerProcess) -> None:
    if ended := server.ended():
        raise EngineBroken(ended)
