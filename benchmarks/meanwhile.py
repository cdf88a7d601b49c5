"""Observe a server and its machine during a load: by the server's own counters, NVML and the kernel."""

from __future__ import annotations

import os
import statistics
import threading
import urllib.request
from contextlib import suppress
from types import TracebackType
from typing import Any

from benchmark.node.interfaces import Engine
from benchmark.node.serving import cache_counters
from benchmark.node.watch.cpu_time import stolen_s
from benchmark.node.watch.nvml import Driver, NoDriver, driver

# vLLM's histograms of query times, in seconds.
HISTOGRAMS = {"TTFT": "vllm_time_to_first_token_seconds", "TPOT": "vllm_request_time_per_output_token_seconds"}
PARTS = ("_sum", "_count")
METRICS_S = 5
LOOK_S = 0.25


class Meanwhile:
    """Context manager that reads a server's /metrics and steal at entry and exit, and the GPUs all the time."""

    def __init__(self, engine: Engine) -> None:
        self._url = f"{engine.settings.benchmark_endpoint_urls[0]}{cache_counters.ROUTE}"
        self._gpus = _Gpus()

    def __enter__(self) -> Meanwhile:
        self._gpus.start()
        self._before, self._stolen_before = self._read(), stolen_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._after, self._stolen_after = self._read(), stolen_s()
        self._gpus.end()

    def beside(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with the observed values and a note on them; missing values are left out."""
        means = self._means_ms()
        found = {f"server {name} mean": ms for name, ms in means.items()}
        said = [row.get("note", "")]
        if means:
            words = ", ".join(f"{name} {ms:.2f}" for name, ms in means.items())
            said.append(f"by the server's own clock, mean: {words}")
        seen = {"MHz": self._gpus.clocks, "W": self._gpus.watts}
        if busy := {unit: statistics.fmean(values) for unit, values in seen.items() if values}:
            found |= {f"GPU {unit}": value for unit, value in busy.items()}
            said.append("GPU busy at " + ", ".join(f"{value:.0f} {unit}" for unit, value in busy.items()))
        if self._stolen_before is not None and self._stolen_after is not None:
            found["stolen s"] = self._stolen_after - self._stolen_before
            said.append(f"{found['stolen s']:.1f} s of CPU time stolen")
        return {**row, **found, "note": "; ".join(filter(None, said))}

    def _means_ms(self) -> dict[str, float]:
        means = {}
        for name, histogram in HISTOGRAMS.items():
            names = [f"{histogram}{part}" for part in PARTS]
            if all(each in self._before and each in self._after for each in names):
                seconds, queries = (self._after[each] - self._before[each] for each in names)
                if queries > 0:
                    means[name] = seconds / queries * 1e3
        return means

    def _read(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(self._url, timeout=METRICS_S) as answer:  # noqa: S310 # our own server
                text = answer.read().decode()
        except OSError:
            return {}
        return {name: sum(series.values()) for name, series in cache_counters.parse(text).families.items()}


class _Gpus(threading.Thread):
    """Reads the GPUs that this process may use, four times a second; keeps the values while a kernel runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.clocks: list[float] = []
        self.watts: list[float] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Read until the end; do nothing on a machine without a driver."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        with suppress(NoDriver), driver() as asked:
            places = visible.split(",") if visible else map(str, range(asked.count()))
            handles = [
                asked.ask("nvmlDeviceGetHandleByIndex", int(one)) if one.isdecimal() else asked.handle(one)
                for one in places
            ]
            while not self._over.wait(LOOK_S):
                for handle in filter(None, handles):
                    self._look(asked, handle)

    def end(self) -> None:
        """Stop reading."""
        self._over.set()
        self.join()

    def _look(self, asked: Driver, handle: Any) -> None:
        busy = asked.ask("nvmlDeviceGetUtilizationRates", handle)
        if not busy or not busy.gpu:
            return
        if (clock := asked.ask("nvmlDeviceGetClockInfo", handle, asked.nvml.NVML_CLOCK_SM)) is not None:
            self.clocks.append(clock)
        if (power := asked.ask("nvmlDeviceGetPowerUsage", handle)) is not None:
            self.watts.append(power / 1e3)
