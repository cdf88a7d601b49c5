"""Repeat one matrix product until clocks settle: a GPU's sustained rate, its limits, and whether it computes right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmark.node.probes.interfaces import Figure, Gpu, Scope
from benchmark.node.watch.nvml import NoDriver, driver
from benchmark.records.environment import throttle_reasons
from benchmark.records.probes import WRONG

SCOPE: Scope = "gpu"
RATES = ("sustained_matrix_bfloat16",)
SECONDS = 10.0
# The last part counts, when clocks have settled.
SETTLED_S = 5.0
SIZE, EVERY_S = 8192, 0.25


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the rate in the last part in TFLOP/s, and its mean clock (MHz), power (W) and temperature (C).

    `wrong_products` counts the checked products whose sum differs from the first one's: the same kernel on the same
    values gives the same bits on a sound GPU.
    """
    torch = gpu.torch
    one, other = (torch.randn(SIZE, SIZE, device=gpu.device, dtype=torch.bfloat16) for _ in range(2))
    into = torch.empty_like(one)
    sums, seen = [], []
    begin = None
    began = time.perf_counter()
    products = 0
    with _sensors(gpu.uuid) as read:
        while (now := time.perf_counter() - began) < SECONDS:
            if begin is None and now >= SECONDS - SETTLED_S:
                begin = torch.cuda.Event(enable_timing=True)
                begin.record()
                products = 0
            until = time.perf_counter() + EVERY_S
            while time.perf_counter() < until:
                for _ in range(16):
                    torch.mm(one, other, out=into)
                products += 16
                torch.cuda.synchronize()
            sums.append(into.view(torch.int16).sum(dtype=torch.int64))
            if begin is not None:
                seen.append(read())
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        end.synchronize()
    seconds = begin.elapsed_time(end) / 1e3 if begin is not None else float("nan")
    first, *others = (int(value) for value in sums)
    found = {
        "sustained_matrix_bfloat16": Figure(2 * SIZE**3 * products / seconds / 1e12, "TFLOP/s"),
        WRONG: Figure(sum(value != first for value in others), f"of {len(others)}"),
    }
    for name, unit in (("clock", "MHz"), ("power", "W"), ("temperature", "C")):
        values = [reading[name] for reading in seen if name in reading]
        if values:
            found[f"sustained_{name}"] = Figure(sum(values) / len(values), unit)
    for reason, times in Counter(reason for reading in seen for reason in reading.get("reasons", ())).items():
        found[f"sustained_throttled_{reason}"] = Figure(times / len(seen), "share")
    return found


@contextmanager
def _sensors(uuid: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield a function that reads clock, power, temperature and throttle reasons; without a driver it reads nothing."""
    with ExitStack() as stack:
        try:
            asked = stack.enter_context(driver())
        except NoDriver:
            asked = None
        handle = asked.handle(uuid) if asked else None

        def read() -> dict[str, Any]:
            if asked is None or handle is None:
                return {}
            nvml = asked.nvml
            answers = {
                "clock": (asked.ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM), 1),
                "power": (asked.ask("nvmlDeviceGetPowerUsage", handle), 1e-3),
                "temperature": (asked.ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU), 1),
            }
            found: dict[str, Any] = {
                name: value * scale for name, (value, scale) in answers.items() if value is not None
            }
            mask = asked.throttle_mask(handle)
            return {**found, "reasons": throttle_reasons(mask) if mask else ()}

        yield read
