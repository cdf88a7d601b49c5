"""What stands beside a row: nothing that was not seen between entry and exit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Engine
from benchmark.node.watch.nvml import Driver
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import meanwhile
from benchmarks.meanwhile import Meanwhile
from tests.openai_server import Counters, OpenAIServer

HISTOGRAMS = """# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{le="1.0",engine="0"}} {queries}
vllm:time_to_first_token_seconds_count{{engine="0"}} {queries}
vllm:time_to_first_token_seconds_sum{{engine="0"}} {ttft}
vllm:request_time_per_output_token_seconds_count{{engine="0"}} {queries}
vllm:request_time_per_output_token_seconds_sum{{engine="0"}} {tpot}
vllm:request_time_per_output_token_seconds_count{{engine="1"}} 0
vllm:request_time_per_output_token_seconds_sum{{engine="1"}} 0
"""
BUSY, IDLE = SimpleNamespace(gpu=80), SimpleNamespace(gpu=0)


class Histograms(Counters):
    """So many queries, and all their seconds."""

    def __init__(self, queries: int, ttft: float, tpot: float) -> None:
        super().__init__()
        self._text = HISTOGRAMS.format(queries=queries, ttft=ttft, tpot=tpot)

    def text(self) -> str:
        """Return them as vLLM writes them."""
        return self._text


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as serving:
        yield serving


@pytest.fixture
def engine(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(meanwhile, "stolen_s", lambda: None)
    settings = Settings(benchmark_device="cpu", benchmark_endpoint_urls=[server.url])
    return make_engine("endpoint", settings, Generation(max_new_tokens=8, min_new_tokens=8), {})


def test_the_servers_own_means_of_that_time(server: OpenAIServer, engine: Engine) -> None:
    server.counters = Histograms(queries=10, ttft=9.0, tpot=5.0)
    with Meanwhile(engine) as seen:
        server.counters = Histograms(queries=14, ttft=9.4, tpot=5.04)
    row = seen.beside({"note": "1 failed"})
    assert row["server TTFT mean"] == pytest.approx(100)
    assert row["server TPOT mean"] == pytest.approx(10)
    assert row["note"] == "1 failed; by the server's own clock, mean: TTFT 100.00, TPOT 10.00"


def test_a_server_that_says_nothing_or_was_not_asked(server: OpenAIServer, engine: Engine) -> None:
    with Meanwhile(engine) as seen:
        server.counters = Histograms(queries=14, ttft=9.4, tpot=5.04)
    assert seen.beside({}) == {"note": ""}  # it would be of all that the server ever answered
    with Meanwhile(engine) as seen:
        pass
    assert seen.beside({"note": "none"}) == {"note": "none"}
    with Meanwhile(engine) as seen:
        server.counters = None
    assert seen.beside({}) == {"note": ""}


def test_cpu_time_that_was_stolen_meanwhile(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stolen = iter([3.0, 4.5])
    monkeypatch.setattr(meanwhile, "stolen_s", lambda: next(stolen))
    with Meanwhile(engine) as seen:
        pass
    assert seen.beside({}) == {"stolen s": 1.5, "note": "1.5 s of CPU time stolen"}


def test_the_gpus_clock_and_power_while_a_kernel_ran(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, over = [(BUSY, 1800, 600_000), (IDLE, 345, 70_000), (BUSY, 1600, 700_000)], threading.Event()
    asked = []

    class Gpu(Driver):
        def ask(self, question: str, *words: Any) -> Any:
            asked.append((question, words[0]))
            if question == "nvmlDeviceGetHandleByIndex":
                return "the handle"
            if question == "nvmlDeviceGetUtilizationRates":
                if not looks:
                    over.set()
                    return None
                self.now = looks.pop(0)
                return self.now[0]
            return self.now[1 if question == "nvmlDeviceGetClockInfo" else 2]

    @contextmanager
    def one_gpu() -> Iterator[Driver]:
        yield Gpu(SimpleNamespace(NVML_CLOCK_SM=1))  # type: ignore[arg-type]

    monkeypatch.setattr(meanwhile, "driver", one_gpu)
    monkeypatch.setattr(meanwhile, "LOOK_S", 0.001)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with Meanwhile(engine) as seen:
        assert over.wait(30)
    assert asked[0] == ("nvmlDeviceGetHandleByIndex", 3)
    assert seen.beside({}) == {"GPU MHz": 1700, "GPU W": 650, "note": "GPU busy at 1700 MHz, 650 W"}
