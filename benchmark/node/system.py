"""The nodes as one system: a node that serves while a driver measures, and what a driver does before it measures.

What they have to say to each other goes by the controller, in files: see `benchmark/fleet/system.py`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

from pydantic import TypeAdapter

from benchmark.errors import SetupError
from benchmark.files import write_atomic
from benchmark.node.interfaces import Engine, now_ns
from benchmark.node.loading import demands_of, load_engine
from benchmark.node.lock import Lock
from benchmark.node.registry import load_dataset
from benchmark.node.request import RunRequest
from benchmark.node.run import NodeRun
from benchmark.node.together import sleep_until, wait_for_start, wait_for_word
from benchmark.node.watch.telemetry import start_watch
from benchmark.provisioned import ENGINES
from benchmark.records import DatasetInfo, EngineInfo, NodeResult, ServedWindow, Server, ServerPlace, Window
from benchmark.records.system import ASKS_FOR_KEY, TRIES_AT_ONCE, TRY_S
from benchmark.rundir import LISTENS, LOAD, SERVES, SERVING, TRIED, TRY, WINDOWS

if TYPE_CHECKING:
    from benchmark.node.serving.server import EngineServer

# By which a command that starts a server (benchmark_endpoint_start) learns where, and which key it has to ask for.
ADDRESS_VARIABLE, PORT_VARIABLE, KEY_VARIABLE = (
    "BENCHMARK_SERVE_ADDRESS",
    "BENCHMARK_SERVE_PORT",
    "BENCHMARK_SERVE_API_KEY",
)
_SERVERS = TypeAdapter(tuple[Server, ...])
_WINDOWS = TypeAdapter(tuple[Window, ...])


def run(request: RunRequest) -> NodeResult:
    """Measure this node, or have it serve or drive, and return its result: see `benchmark.node.run`."""
    if request.serves is not None:
        return ServingRun(request, request.serves).run()
    return (DrivingRun if request.drives else NodeRun)(request).run()


class ServingRun(NodeRun):
    """Starts the node's server, watches the node while the driver measures, and ends when the driver has."""

    def __init__(self, request: RunRequest, place: ServerPlace) -> None:
        super().__init__(request)
        self.place = place
        self.listening = Lock(request.directory / f"{LISTENS}.lock")

    def _stages(self) -> None:
        settings, profile, wait_s = self.request.settings, self.profile, self.request.wait_s or 0
        environment = self._examine()
        with self.open.stage("environment", reported="its port is tried"):
            self._hold_port(wait_s)
        if settings.benchmark_probes == "on":
            self._probe(environment)
        with self.open.stage("environment"):
            dataset = load_dataset(profile.dataset, settings, dict(profile.dataset_options))
            self.open.update(
                dataset=DatasetInfo(name=dataset.name, prompts=len(dataset.prompts), sha256=dataset.sha256)
            )
        with ExitStack() as stack:
            if settings.benchmark_telemetry:
                self.watch = start_watch(self.request.directory, environment)
                stack.callback(self.watch.close)
            with self.open.stage("loading"):
                self._tell_server()
                demands = demands_of(profile, dataset, token_ids=False)
                engine, loaded = load_engine(profile, settings, partial(self._equip, demands), stack, apart=True)
                check = engine.check if engine.has_server else self._serve(engine, loaded, stack).check
                details = {**loaded.details, ASKS_FOR_KEY: not answers_anybody(self.place)}
                self.open.update(engine=loaded.model_copy(update={"details": details}))
            server = Server(node=self.request.node, url=self.place.url, replicas=loaded.replicas)
            write_atomic(self.request.directory / SERVES, server.model_dump_json())
            with self.open.stage("ready", reported="serves, waiting for the driver"):
                if self.watch.gpus:
                    self.watch.idle()
                start = wait_for_start(self.request.directory, wait_s, environment, self.measurements.starting[0])
                sleep_until(start.at_ns)
                began_ns = now_ns()
                self.watch.start(began_ns)
            with self.open.stage("measuring", reported="serving"):
                try:
                    wait_for_word(self.request.directory / WINDOWS, self.request.limit_s or 0, check)
                finally:
                    self.watch.end(began_ns, now_ns())
                self._keep_windows(start.unix_ns)

    def _hold_port(self, wait_s: float) -> None:
        """Listen where the server is going to, so that the driver can try to connect, until all were tried."""
        with hold(self.place):
            write_atomic(self.request.directory / LISTENS, "")
            self.listening.release()
            wait_for_word(self.request.directory / LOAD, wait_s)

    def _tell_server(self) -> None:
        """Say where the server is to listen and which key it is to ask for: in its environment, for its user alone."""
        key = self.request.secrets.api_key
        os.environ |= {ADDRESS_VARIABLE: self.place.host, PORT_VARIABLE: str(self.place.port), KEY_VARIABLE: key}
        declared = ENGINES.get(self.profile.engine)
        if declared and declared.key_variable:
            os.environ[declared.key_variable] = key
        without_proxy([self.place])

    def _serve(self, engine: Engine, loaded: EngineInfo, stack: ExitStack) -> EngineServer:
        """Return a server of ours for an engine that has none."""
        from benchmark.node.serving.server import EngineServer  # here alone: it takes aiohttp a while to import

        model, key = self.request.settings.benchmark_model, self.request.secrets.api_key
        server = EngineServer(engine, loaded.name, model, self.profile.generation, key)
        server.start(hold(self.place))
        stack.callback(server.close)
        return server

    def _keep_windows(self, began_unix_ns: int) -> None:
        """Keep what was watched in each of the windows that the driver measured in; none: it measured nothing."""
        text = (self.request.directory / WINDOWS).read_text(encoding="utf-8")
        served, before_ns = [], None
        for number, window in enumerate(_WINDOWS.validate_json(text), start=1):
            from_ns, to_ns = window.started_unix_ns - began_unix_ns, window.ended_unix_ns - began_unix_ns
            telemetry = self.watch.between(from_ns, to_ns, before_ns, number)
            served.append(ServedWindow(window=window, telemetry=telemetry))
            before_ns = to_ns
        first: dict[str, Any] = {"window": served[0].window, "telemetry": served[0].telemetry} if served else {}
        self.open.update(served=tuple(served), **first)


class DrivingRun(NodeRun):
    """Tries whether it reaches the servers, and measures them all as one once they serve."""

    def __init__(self, request: RunRequest) -> None:
        super().__init__(request)
        self.trying = Lock(request.directory / f"{TRIED}.lock")

    def _meet(self) -> None:
        directory, wait_s, places = self.request.directory, self.request.wait_s or 0, self.request.drives
        without_proxy(places)
        with self.open.stage("environment", reported="tries the servers' ports"):
            wait_for_word(directory / TRY, wait_s)
            write_atomic(directory / TRIED, TypeAdapter(dict[str, str]).dump_json(unreached(places)).decode())
            self.trying.release()
        with self.open.stage("environment", reported="waiting for the servers"):
            wait_for_word(directory / SERVING, wait_s)
            servers = _SERVERS.validate_json((directory / SERVING).read_text(encoding="utf-8"))
            self.request = replace(self.request, servers=servers)

    def _details(self) -> dict[str, Any]:
        return {"servers": [server.model_dump() for server in self.request.servers]}


def hold(place: ServerPlace) -> socket.socket:
    """Return a socket that listens where a server is to. Raises SetupError, one sentence, where none can."""
    where = f"{place.host} port {place.port}"
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((place.host, place.port), family=family, backlog=TRIES_AT_ONCE)
    except socket.gaierror:
        reason = f"this node finds no address for {place.host}: set benchmark_serve_address to an address of the node"
    except OSError as error:
        reason = {
            "EADDRINUSE": "something else listens there: end it, or set benchmark_serve_port",
            "EADDRNOTAVAIL": "that is no address of this node: set benchmark_serve_address to one",
            "EACCES": "this user may not: set benchmark_serve_port to 1024 or more",
        }.get(_name(error), error.strerror or str(error))
    raise SetupError(f"No server can listen on {where}: {reason}.")


def unreached(places: Sequence[ServerPlace]) -> dict[str, str]:
    """Return which nodes' ports cannot be connected to from here, each with why."""
    with ThreadPoolExecutor(TRIES_AT_ONCE) as pool:
        tried = zip(places, pool.map(_try, places), strict=True)
        return {place.node: why for place, why in tried if why}


def _try(place: ServerPlace) -> str:
    try:
        socket.create_connection((place.host, place.port), TRY_S).close()
    except socket.gaierror:
        return f"no address is found for {place.host}"
    except TimeoutError:
        return f"no answer within {TRY_S:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def answers_anybody(place: ServerPlace) -> bool:
    """Return whether a server answers whoever has no key: then who reaches its port may use it."""
    try:
        # Past any proxy: see without_proxy.
        with build_opener(ProxyHandler({})).open(f"{place.url}/v1/models", timeout=TRY_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def without_proxy(places: Iterable[ServerPlace]) -> None:
    """Have no proxy stand between the driver and the servers: its limits would be measured too."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = ",".join([*filter(None, [known]), *(place.host for place in places)])


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "")
