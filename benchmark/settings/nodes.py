"""Settings of how nodes measure, alone and together: as what, when, how often, how long, and how many must count."""

from __future__ import annotations

import ipaddress
import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from benchmark.settings.base import SettingsPart

# What the system's resolver reads as an IPv4 address, even if short, octal or hexadecimal.
NUMERIC = re.compile(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+))*\.?", re.IGNORECASE)
BROADCAST = ipaddress.ip_address("255.255.255.255")


def _number_or_share(value: Any) -> Any:
    """Return a whole number of at least 1, or a percentage above 0 % and up to 100 % as text."""
    text = "" if isinstance(value, bool) else str(value).strip()
    share = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text)
    if share and 0 < float(share[1]) <= 100:
        return f"{share[1]}%"
    if re.fullmatch(r"[0-9]+", text) and int(text) >= 1:
        return int(text)
    raise ValueError("a whole number greater than 0, or a percentage such as 80%, is needed")


class NodesSettings(SettingsPart):
    """Measuring, and nodes together."""

    benchmark_system: Literal["node", "cluster"] = Field(
        "node",
        description=(
            "what is measured: node: each node by itself, all at the same time; cluster: all nodes as one system, "
            "which answer the queries of one LoadGen"
        ),
    )
    benchmark_driver: str = Field(
        "",
        description=(
            "where that LoadGen runs if benchmark_system is cluster: a node's name; empty: the controller, which then "
            "needs requirements-driver.txt"
        ),
    )
    benchmark_serve_address: str = Field(
        "",
        description=(
            "the node's address or name, where its server listens for the driver if benchmark_system is cluster, or "
            "where other nodes of its benchmark_group reach it; empty: ansible_host"
        ),
    )
    benchmark_serve_port: int = Field(
        8000,
        ge=1,
        le=65535,
        description=(
            "the port that the server listens on if benchmark_system is cluster; in a benchmark_group: the port at "
            "which its nodes meet"
        ),
    )
    benchmark_group: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][\w.-]{0,63})?$",
        description=(
            "nodes with the same value serve one copy of a model together, one that is too large for a node; the "
            "first in the inventory is measured; empty: the node by itself"
        ),
    )
    benchmark_busy: Literal["wait", "fail"] = Field(
        "wait",
        description=(
            "what to do if another run, of any user, measures on the node's machine: wait for its end, up to "
            "benchmark_sync_timeout_s, or fail the node; for provisioning too"
        ),
    )
    benchmark_shared_machine: bool = Field(
        False,
        description=(
            "whether nodes and runs that all set this share the machine without waiting for each other: for trying "
            "things out, as the figures do not describe the machine"
        ),
    )
    benchmark_timeout_s: int = Field(
        1800,
        ge=1,
        le=7 * 86400,
        description=(
            "seconds until a node counts as hung and its partial samples are fetched, counted from each agreed start, "
            "or from its launch if it does not wait for others"
        ),
    )
    benchmark_sync_start: bool = Field(
        True,
        description=("whether all nodes begin to measure at one agreed time, once every one has loaded and warmed up"),
    )
    benchmark_sync_timeout_s: int = Field(
        900,
        ge=1,
        le=7 * 86400,
        description=(
            "seconds after its start within which a node must be ready to measure, a peak search "
            "included; else it is stopped and the others go on"
        ),
    )
    benchmark_telemetry: bool = Field(
        True,
        description=(
            "whether GPUs (through NVML) and host (through psutil) are watched ten times a second "
            "while the node measures; also gives the energy"
        ),
    )
    benchmark_cost_per_gpu_hour: float = Field(
        0,
        ge=0,
        description=(
            "price of one GPU for an hour, in benchmark_currency, per group or host; gives the cost of a million "
            "tokens; 0: not known, and no cost is shown"
        ),
    )
    benchmark_currency: str = Field(
        "USD", pattern=r"^[^\W\d_]{1,8}$|^[$€£¥₩₹]$", description="what prices are in, as a word or sign: only printed"
    )
    benchmark_solo_first: bool = Field(
        False,
        description=(
            "whether each node measures alone first, one after the other: what nodes lose together is due to shared "
            "power, cooling or storage"
        ),
    )
    benchmark_repeats: int = Field(
        1,
        ge=1,
        le=20,
        description=(
            "measurements of the profile, up to 20, with the model loaded once: their spread is reported, and the "
            "median one is the run's result"
        ),
    )
    benchmark_min_nodes: Annotated[int | str, BeforeValidator(_number_or_share)] = Field(
        "100%",
        description=(
            "nodes that must be counted for the run to be valid: a number, or a percentage of the run's nodes"
        ),
    )
    benchmark_drift: Literal["warn", "fail", "ignore"] = Field(
        "warn",
        description=(
            "what to do if nodes with the same GPU differ in driver, clocks, packages, ...; fail stops them before "
            "anything is measured"
        ),
    )

    @field_validator("benchmark_serve_address")
    @classmethod
    def _serve_address(cls, value: str) -> str:
        # The system reads a plain number as an address: 0 would be all of them.
        if ":" in value or NUMERIC.fullmatch(value):
            try:
                address = ipaddress.ip_address(value)
            except ValueError:
                address = None
            if address is not None and "%" not in value and not (address.is_multicast or address == BROADCAST):
                return value
        elif re.fullmatch(r"[\w.-]*", value):
            return value
        raise ValueError(
            "neither a name nor a host's address, which is written in full, IPv6 without brackets and without an "
            "interface, and the port is benchmark_serve_port"
        )


def needed_nodes(min_nodes: int | str, asked: int) -> int:
    """Return how many of the nodes `asked` must be counted: the number, or the percentage of them, rounded up."""
    if isinstance(min_nodes, int):
        return min_nodes
    return max(1, math.ceil(Fraction(min_nodes.rstrip("%")) * asked / 100))
