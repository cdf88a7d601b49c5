"""All nodes as one system (`benchmark_system: cluster`): whether they fit, where they serve, the driver's order."""

from __future__ import annotations

import importlib.util
import ipaddress
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.cluster.names import some
from benchmark.fleet.rendezvous import GRACE_S, repeats_s
from benchmark.records import DRIVER, RunRecord, ServerPlace, System
from benchmark.settings import SYSTEM_WIDE, ResolvedSettings, Settings
from benchmark.settings.nodes import needed_nodes
from benchmark.words import plural

CLUSTER, SERVED = "cluster", "endpoint"
CONTROLLER = "the controller"
DRIVER_REQUIREMENTS = "requirements-driver.txt"
# The driver's own settings, whatever its node's: it loads nothing and computes on no GPU.
_DRIVERS = {
    "benchmark_engine": SERVED,
    "benchmark_engine_options": {},
    "benchmark_endpoint_start": "",
    "benchmark_device": "cpu",
    "benchmark_replicas": "auto",
    "benchmark_probes": "off",
    "benchmark_probe_floors": {},
}


def is_system(resolved: Mapping[str, ResolvedSettings]) -> bool:
    """Return whether the nodes form one system."""
    return any(asked.settings.benchmark_system == CLUSTER for asked in resolved.values())


def system_problems(resolved: Mapping[str, ResolvedSettings], hosts: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each reason that the nodes cannot be one system, if they are to be one."""
    if not is_system(resolved):
        return
    for name in SYSTEM_WIDE:
        yield from _unlike(name, {node: getattr(asked.settings, name) for node, asked in resolved.items()})
    by_port: dict[tuple[str, int], list[str]] = {}
    yield from link_local(places := places_of(resolved, hosts))
    for place in places:
        by_port.setdefault((place.host, place.port), []).append(place.node)
    for (host, port), nodes in by_port.items():
        if len(nodes) > 1:
            yield (
                f"{some(nodes)} would serve at the same address, {host} port {port}: set benchmark_serve_address or "
                "benchmark_serve_port of each."
            )
    least = next(iter(resolved.values())).settings.benchmark_min_nodes
    if (needed := needed_nodes(least, len(resolved))) > len(resolved):
        yield (
            f"benchmark_system is cluster, and benchmark_min_nodes is {needed}, where {plural(len(resolved), 'node')} "
            "of this play could serve: nothing would be measured. Lower it, or name more nodes."
        )
    if DRIVER in resolved:
        yield f"benchmark_system is cluster, and a node is called {DRIVER}, like the run's own driver: rename it."
    driver = next(iter(resolved.values())).settings.benchmark_driver
    if driver and driver not in resolved:
        yield f"benchmark_driver is {driver}, which is no node of this play: name one of gpu_nodes, or leave it empty."
    if not driver:
        yield from _controllers(next(iter(resolved.values())))


def _unlike(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    nodes_by_value: dict[str, list[str]] = {}
    for node, value in values.items():
        nodes_by_value.setdefault(repr(value), []).append(node)
    if len(nodes_by_value) > 1:
        words = "; ".join(f"{value} [{some(nodes)}]" for value, nodes in nodes_by_value.items())
        yield f"benchmark_system is cluster, and {name} differs between the nodes of the system: {words}."


def _controllers(asked: ResolvedSettings) -> Iterator[str]:
    """Yield what the controller lacks in order to be the driver."""
    needed = {"aiohttp": "aiohttp", "psutil": "psutil"}
    if asked.profile.scenario == "loadgen":
        needed["mlperf_loadgen"] = "mlcommons-loadgen"
    lacking = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if lacking:
        yield (
            f"The controller is the driver (benchmark_driver is empty), and its Python lacks {', '.join(lacking)}: pip "
            f"install -r {DRIVER_REQUIREMENTS}, or set benchmark_driver to a node."
        )
    if not (Path(sys.prefix) / "bin" / "python").exists():
        yield (
            f"The controller is the driver (benchmark_driver is empty), and there is no {sys.prefix}/bin/python: run "
            "ansible-playbook from a virtual environment, or set benchmark_driver to a node."
        )


def places_of(resolved: Mapping[str, ResolvedSettings], hosts: Mapping[str, str]) -> tuple[ServerPlace, ...]:
    """Return where each node's server listens."""
    return tuple(
        ServerPlace(
            node=node,
            host=asked.settings.benchmark_serve_address or hosts.get(node, node),
            port=asked.settings.benchmark_serve_port,
        )
        for node, asked in resolved.items()
    )


def link_local(places: Iterable[ServerPlace]) -> Iterator[str]:
    """Yield a sentence for each address that is link-local, and so means another host on other machines."""
    for place in places:
        with suppress(ValueError):  # a name
            address = ipaddress.ip_address(place.host)
            if address.version == 6 and address.is_link_local:
                yield (
                    f"{place.node} would be reached at {place.host}, which means something else on every machine: set "
                    "benchmark_serve_address to an address of the node that is not link-local."
                )


def system_of(resolved: Mapping[str, ResolvedSettings], hosts: Mapping[str, str]) -> System | None:
    """Return the system that the nodes form, with its driver's order; None if each node is a system of its own."""
    if not is_system(resolved):
        return None
    places = places_of(resolved, hosts)
    driver = next(iter(resolved.values())).settings.benchmark_driver
    asked = resolved[driver] if driver else next(iter(resolved.values()))
    changes = {**_DRIVERS, "benchmark_endpoint_urls": [place.url for place in places]}
    if asked.profile.engine != SERVED:
        changes["benchmark_endpoint_model"] = asked.settings.benchmark_model
    if not driver:
        changes |= _on_controller(asked.settings)
    profile = asked.profile.model_copy(update={"engine": SERVED, "engine_options": {}, "fallback_engine": ""})
    settings = Settings.model_validate({**asked.settings.model_dump(), **changes})
    return System(driver=driver, resolved=ResolvedSettings(settings=settings, profile=profile), servers=places)


def _on_controller(asked: Settings) -> dict[str, Any]:
    """Return the settings of a driver that is not a node: it uses the Python that ansible-playbook runs in.

    Its files are beside the results until it has ended.
    """
    default = Settings()
    return {
        "python_env_manage": True,
        "python_env_dir": sys.prefix,
        "benchmark_work_dir": str(Path(asked.benchmark_results_dir).expanduser().absolute() / ".driver"),
        "hf_cache_dir": asked.hf_cache_controller_dir or default.hf_cache_dir,
    }


def patience_of_system_s(resolved: Collection[ResolvedSettings]) -> int:
    """Return how many seconds each part of a system waits until all nodes, and the driver, have loaded."""
    return 2 * max(asked.settings.benchmark_sync_timeout_s for asked in resolved) + GRACE_S + len(resolved)


def limit_of_system_s(resolved: Collection[ResolvedSettings]) -> int:
    """Return the time limit of a system's node, in seconds: it serves until the driver has measured."""
    measures_s = max(asked.settings.benchmark_timeout_s for asked in resolved)
    return patience_of_system_s(resolved) + measures_s + repeats_s(resolved)


def where(system: System) -> str:
    """Return in words where the driver runs."""
    return system.driver or CONTROLLER


def run_of_driver(run: RunRecord, system: System) -> RunRecord:
    """Return the run as if the driver were its only node, for checking the driver's files."""
    attempts = tuple(attempt.model_copy(update={"nodes": (DRIVER,)}) for attempt in run.attempts)
    return run.model_copy(update={"nodes": {DRIVER: system.resolved}, "attempts": attempts})
