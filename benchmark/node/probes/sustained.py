"""The same matrix product until clocks settle: what a GPU keeps up, why not more, and whether it computes right."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from benchmark.node.probes.interfaces import Figure, Gpu, Scope
from benchmark.node.watch.nvml import NoDriver, driver

SCOPE: Scope = "gpu"
SECONDS = 10.0
# What is looked at: the last part, when clocks have settled.
SETTLED_S = 5.0
SIZE, EVERY_S = 8192, 0.25


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the rate of the last half in TFLOP/s, the mean clock (MHz), power (W) and temperature (C) in it.

    `wrong products` counts those whose sum differs from the first one's: the same kernel on the same values gives
    the same bits on a GPU that computes right.
    """
    torch = gpu.torch
    one, other = (torch.randn(SIZE, SIZE, device=gpu.device, dtype=torch.bfloat16) for _ in range(2))
    into = torch.empty_like(one)
    sums, seen = [], []
    begin = None
    began = time.perf_counter()
    products = 0
    with _Sensors(gpu.uuid) as sensors:
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
                seen.append(sensors.read())
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        end.synchronize()
    seconds = begin.elapsed_time(end) / 1e3 if begin is not None else float("nan")
    first, *others = (int(value) for value in sums)
    found = {
        "sustained matrix bfloat16": Figure(2 * SIZE**3 * products / seconds / 1e12, "TFLOP/s"),
        "wrong products": Figure(sum(value != first for value in others), "of " + str(len(others))),
    }
    for name, unit in (("clock", "MHz"), ("power", "W"), ("temperature", "C")):
        values = [reading[name] for reading in seen if name in reading]
        if values:
            found[f"sustained {name}"] = Figure(sum(values) / len(values), unit)
    for reason, times in Counter(reason for reading in seen for reason in reading.get("reasons", ())).items():
        found[f"sustained throttled: {reason}"] = Figure(times / len(seen), "share")
    return found


class _Sensors:
    def __init__(self, uuid: str) -> None:
        self._uuid = uuid

    def __enter__(self) -> _Sensors:
        self._driver: Any = None
        self._opened = driver()
        try:
            self._driver = self._opened.__enter__()
            self._handle = self._driver.handle(self._uuid)
        except NoDriver:
            self._opened = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._opened is not None:
            self._opened.__exit__(*error)

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._driver is None or self._handle is None:
            return found
        nvml, handle = self._driver.nvml, self._handle
        answers = {
            "clock": (self._driver.ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM), 1),
            "power": (self._driver.ask("nvmlDeviceGetPowerUsage", handle), 1e-3),
            "temperature": (self._driver.ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU), 1),
        }
        found |= {name: value * scale for name, (value, scale) in answers.items() if value is not None}
        return found
