"""All nodes as one system: a node that serves while a driver measures, and a driver's steps before it measures.

They communicate through the controller, in files: see `benchmark/fleet/system.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

from pydantic import TypeAdapter

from benchmark.files import write_atomic
from benchmark.node.interfaces import Dataset, Engine
from benchmark.node.loading import demands_of, load_engine
from benchmark.node.lock import Lock
from benchmark.node.ports import hold, unreached
from benchmark.node.registry import load_dataset
from benchmark.node.request import RunRequest
from benchmark.node.run import NodeRun
from benchmark.node.together import Start, wait_for_word
from benchmark.node.watching import WatchingRun
from benchmark.provisioned import ENGINES
from benchmark.records import DatasetInfo, EngineInfo, Environment, NodeResult, Server, ServerPlace
from benchmark.records.system import ASKS_FOR_KEY, TRY_S
from benchmark.rundir import LISTENS, LOAD, SERVES, SERVING, TRIED, TRY

if TYPE_CHECKING:
    from benchmark.node.serving.server import EngineServer

# They tell the command that starts a server (benchmark_endpoint_start) where to listen and which key to require.
ADDRESS_VARIABLE, PORT_VARIABLE, KEY_VARIABLE = (
    "BENCHMARK_SERVE_ADDRESS",
    "BENCHMARK_SERVE_PORT",
    "BENCHMARK_SERVE_API_KEY",
)
_SERVERS = TypeAdapter(tuple[Server, ...])


def run(request: RunRequest) -> NodeResult:
    """Measure this node, or make it serve or drive, and return its result: see `benchmark.node.run`."""
    if request.serves is not None:
        return ServingRun(request, request.serves).run()
    return (DrivingRun if request.drives else NodeRun)(request).run()


class ServingRun(WatchingRun):
    """Starts the node's server for a driver, which measures it together with all others."""

    waits = "serving, waiting for the driver"
    works = "serving"
    dataset: Dataset

    def __init__(self, request: RunRequest, place: ServerPlace) -> None:
        super().__init__(request)
        self.place = place

    def _join(self, environment: Environment) -> None:
        """Listen at the server's place, so that the driver can test the connection, until all have been tested."""
        with self.open.stage("environment"):
            # Before the wait: errors in this node's data are found before others wait for it.
            profile = self.profile
            self.dataset = load_dataset(profile.dataset, self.request.settings, dict(profile.dataset_options))
            dataset = DatasetInfo(name=self.dataset.name, prompts=len(self.dataset.prompts), sha256=self.dataset.sha256)
            self.open.update(dataset=dataset)
        with self.open.stage("environment", reported="its port is being tried"), hold(self.place):
            write_atomic(self.request.directory / LISTENS, "")
            self.listening.release()
            wait_for_word(self.request.directory / LOAD, self.request.wait_s or 0)

    def _load(self, stack: ExitStack) -> Callable[[], None]:
        # Another program may have taken the port meanwhile; check that before loading for minutes.
        hold(self.place).close()
        self._tell_server()
        demands = demands_of(self.profile, self.dataset, token_ids=False)
        engine, loaded = load_engine(
            self.profile, self.request.settings, partial(self._equip, demands), stack, apart=True
        )
        check = engine.check if engine.has_server else self._serve(engine, loaded, stack).check
        details = {**loaded.details, ASKS_FOR_KEY: not answers_anybody(self.place)}
        self.open.update(engine=loaded.model_copy(update={"details": details}))
        server = Server(node=self.request.node, url=self.place.url, replicas=loaded.replicas)
        write_atomic(self.request.directory / SERVES, server.model_dump_json())
        return check

    def _until_over(self, start: Start, check: Callable[[], None]) -> None:
        super()._until_over(start, check)
        # A server that died after the last check may be the reason for the driver's end.
        check()

    def _tell_server(self) -> None:
        """Set the server's address and the key it requires in its environment, which only its user can read."""
        key = self.request.secrets.api_key
        os.environ |= {ADDRESS_VARIABLE: self.place.host, PORT_VARIABLE: str(self.place.port), KEY_VARIABLE: key}
        declared = ENGINES.get(self.profile.engine)
        if declared and declared.key_variable:
            os.environ[declared.key_variable] = key
        without_proxy([self.place])

    def _serve(self, engine: Engine, loaded: EngineInfo, stack: ExitStack) -> EngineServer:
        """Return a server of our own for an engine without one."""
        from benchmark.node.serving.server import EngineServer  # imported only here: aiohttp takes a while to import

        model, key = self.request.settings.benchmark_model, self.request.secrets.api_key
        server = EngineServer(engine, loaded.name, model, self.profile.generation, key)
        server.start(hold(self.place))
        stack.callback(server.close)
        return server


class DrivingRun(NodeRun):
    """Tests whether it can reach the servers, and measures them all as one system once they serve."""

    def __init__(self, request: RunRequest) -> None:
        super().__init__(request)
        self.trying = Lock(request.directory / f"{TRIED}.lock")

    def _meet(self) -> None:
        directory, wait_s, places = self.request.directory, self.request.wait_s or 0, self.request.drives
        without_proxy(places)
        with self.open.stage("environment", reported="trying the servers' ports"):
            wait_for_word(directory / TRY, wait_s)
            write_atomic(directory / TRIED, TypeAdapter(dict[str, str]).dump_json(unreached(places)).decode())
            self.trying.release()
        with self.open.stage("environment", reported="waiting for the servers"):
            wait_for_word(directory / SERVING, wait_s)
            servers = _SERVERS.validate_json((directory / SERVING).read_text(encoding="utf-8"))
            self.request = replace(self.request, servers=servers)

    def _details(self) -> dict[str, Any]:
        return {"servers": [server.model_dump() for server in self.request.servers]}


def answers_anybody(place: ServerPlace) -> bool:
    """Return whether a server answers without a key: then anyone who can reach its port may use it."""
    try:
        # Without a proxy: see without_proxy.
        with build_opener(ProxyHandler({})).open(f"{place.url}/v1/models", timeout=TRY_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def without_proxy(places: Iterable[ServerPlace]) -> None:
    """Use no proxy between the driver and the servers: it would be measured too."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = ",".join([*filter(None, [known]), *(place.host for place in places)])
