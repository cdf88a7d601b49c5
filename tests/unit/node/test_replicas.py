"""Real processes: most host the simulated engine, which imports no torch; one pair hosts a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError, SetupError
from benchmark.node.engines import sequential
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import EngineBroken, Prompt, Query, now_ns
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.replicas import Replicated
from benchmark.node.watch.oom import oom_kills
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unit.node.heard import PATIENCE_S, Heard

CHECKOUT = Path(__file__).parents[3]
GENERATION = Generation(max_new_tokens=4, min_new_tokens=4)
CPU = Settings(benchmark_device="cpu")


def query(index: int, text: str = "Why?") -> Query:
    return Query(index=index, prompt=Prompt(id=f"p{index}", text=text), seed=index)


def replicated(options: dict[str, Any], count: int = 2) -> Replicated:
    return Replicated("simulated", CPU, GENERATION, options, count, None)


@pytest.fixture(scope="module")
def slow() -> Iterator[Replicated]:
    """Two replicas whose answers take longer than any test; a test may kill the first and later the second."""
    engine = replicated({"ttft_ms": 0, "tpot_ms": 100_000})
    engine.load()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def quick() -> Iterator[Replicated]:
    engine = replicated({"ttft_ms": 1, "tpot_ms": 1, "fail_indexes": [3]})
    info = engine.load()
    assert info.replicas == 2
    assert info.simulated
    pids = {each["pid"] for each in info.details["replicas"]}  # type: ignore[index,union-attr,call-overload]
    assert len(pids) == 2
    assert os.getpid() not in pids
    yield engine
    engine.close()


def test_queries_are_spread_by_this_hosts_clock(quick: Replicated) -> None:
    heard, before = Heard(), now_ns()
    for index in range(10):
        quick.submit(query(index), heard)
    heard.wait(10)
    assert set(heard.tokens) == set(range(10)) - {3}
    assert min(replica.dispatched for replica in quick._replicas) > 0
    for index, tokens in heard.tokens.items():
        assert tokens == tuple(index + position for position in range(4))  # the query's own seed went along
        assert before < heard.first[index] < heard.last[index] < now_ns()


def test_a_query_that_nobody_waits_for_is_left_out() -> None:
    """By a single replica too: behind a server it has a process of its own."""
    engine = make_engine("continuous", CPU, GENERATION, {}, apart=True)
    assert isinstance(engine, Replicated)
    slow, heard, asked = replicated({"ttft_ms": 500, "tpot_ms": 0}, count=1), Heard(), query(0)
    slow.load()
    slow.submit(asked, heard)
    slow.submit(query(1), heard)
    slow.cancel(asked)
    slow.cancel(asked)
    heard.wait(1)
    slow.check()
    slow.close()
    assert set(heard.tokens) == {1}
    assert set(heard.first) == {1}
    with pytest.raises(EngineBroken, match="was closed"):
        slow.check()


def test_an_error_in_a_replica_names_the_replica(quick: Replicated) -> None:
    heard = Heard()
    quick.submit(query(3), heard)
    heard.wait(1)
    assert heard.errors[3].startswith("Replica ")
    assert heard.errors[3].endswith("The simulated engine is set to fail this query.")


def test_a_listener_that_breaks_fails_the_queries_alone() -> None:
    class Breaking(Heard):
        def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
            raise ValueError("no")

    engine = replicated({}, count=1)
    engine.load()
    try:
        heard = Breaking()
        engine.submit(query(0), heard)
        heard.wait(1)
        assert "ValueError: no" in heard.errors[0]
        with pytest.raises(EngineBroken, match="ValueError: no"):
            engine.submit(query(1), heard)
    finally:
        engine.close()


def test_a_killed_replica_fails_its_queries_alone(slow: Replicated) -> None:
    heard = Heard()
    slow.submit(query(0), heard)
    slow.submit(query(1), heard)
    heard.wait_for_first_tokens(2)
    first, second = slow._replicas
    assert first.process.pid is not None
    assert second.process.pid is not None

    os.kill(first.process.pid, signal.SIGKILL)
    heard.wait(1)
    assert list(heard.errors) == [0]
    assert heard.errors[0].startswith(f"Replica 0 (pid {first.process.pid}, CPU) was killed by SIGKILL")
    counted = oom_kills() is not None
    assert heard.errors[0].endswith(", and not by the OOM killer." if counted else "when memory runs out.")
    slow.submit(query(2), heard)
    assert (first.dispatched, second.dispatched) == (1, 2)

    os.kill(second.process.pid, signal.SIGKILL)
    heard.wait(3)
    with pytest.raises(EngineBroken, match=r"Replica 0 .* Replica 1 .* SIGKILL"):
        slow.submit(query(3), heard)


def test_closing_ends_the_processes_and_fails_what_is_in_flight() -> None:
    engine = replicated({"tpot_ms": 100_000}, count=1)
    engine.load()
    heard = Heard()
    engine.submit(query(0), heard)
    engine.close()
    heard.wait(1)
    assert "closed" in heard.errors[0]
    assert not engine._replicas[0].process.is_alive()


def test_what_keeps_a_replica_from_loading_is_reported(tmp_path: Path) -> None:
    absent = Replicated(
        "continuous", Settings(benchmark_model=str(tmp_path), benchmark_device="cpu"), GENERATION, {}, 1, None
    )
    with pytest.raises(SetupError, match=r"Replica 0 \(pid \d+, CPU\): .* holds no model"):
        absent.load()
    absent.close()
    with pytest.raises(InputError, match="engine_options of the simulated engine: speed"):
        replicated({"speed": 1}, count=1).load()


def test_replicas_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            from benchmark.node.replicas import Replicated
            from benchmark.profiles import Generation
            from benchmark.settings import Settings

            if __name__ == "__main__":
                engine = Replicated("simulated", Settings(benchmark_device="cpu"), Generation(), {}, 1, None)
                print(engine.load().details["replicas"][0]["pid"], flush=True)
                input()
            """
        )
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, **pipes) as parent:
        assert parent.stdout is not None
        replica = int(parent.stdout.readline())
        os.kill(replica, 0)
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while _runs(replica):
        assert time.monotonic() < deadline, "the replica outlived its parent"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("engine", "device", "asked", "visible", "replicas"),
    [
        ("continuous", "cpu", "auto", None, 1),
        ("continuous", "cpu", 2, None, 2),
        ("continuous", "cuda", "auto", "4,5,6", 3),
        ("continuous", "cuda", "auto", "2", 1),
        ("continuous", "cuda", 2, "4,5,6", 2),
        ("simulated", "cpu", "auto", None, 1),
        ("continuous", "cuda", "auto", "0,-1,1", 1),
        ("continuous", "cuda", "auto", "0 1", 1),
        ("continuous", "cuda", "auto", "4,5,", 2),
        ("continuous", "cuda", "auto", "GPU-8f, 1", 1),
        ("sequential", "cuda", "auto", "4,5,6", 1),
    ],
)
def test_one_replica_per_visible_gpu_where_the_engine_can(
    engine: str,
    device: str,
    asked: Any,
    visible: str | None,
    replicas: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    made = make_engine(engine, Settings(benchmark_device=device, benchmark_replicas=asked), GENERATION, {})
    assert (made._count if isinstance(made, Replicated) else 1) == replicas
    if isinstance(made, Replicated) and visible is not None:
        assert made._part(1)[0] == {"CUDA_VISIBLE_DEVICES": visible.split(",")[1]}


def test_what_cannot_be_replicated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="simulated runs once"):
        make_engine("simulated", Settings(benchmark_replicas=2), GENERATION, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SetupError, match="1 GPUs are visible"):
        make_engine("continuous", Settings(benchmark_replicas=2), GENERATION, {})


@pytest.mark.parametrize(
    ("value", "asked", "said"),
    [
        ("0,-1,1", 2, r"1 GPUs are visible.* CUDA_VISIBLE_DEVICES is '0,-1,1': '-1' is negative"),
        ("0 1", 2, r"1 GPUs are visible.* '0 1' is read as 0 alone: entries are separated by commas"),
        ("0,0", "auto", r"No GPU is visible.* '0' occurs twice, and CUDA then sees no GPU at all"),
        ("-1", "auto", "No GPU is visible.* '-1' is negative"),
        ("NoDevFiles", 1, "No GPU is visible.* 'NoDevFiles' is not a number"),
        ("", "auto", "No GPU is visible.* entry 1 is empty"),
    ],
)
def test_gpus_that_cuda_leaves_out_are_named(
    value: str, asked: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(SetupError, match=said):
        make_engine("continuous", Settings(benchmark_replicas=asked), GENERATION, {})


@pytest.mark.parametrize("engine", ["endpoint", "vllm"])
def test_an_engine_that_counts_gpus_itself_runs_once(engine: str) -> None:
    made = make_engine(engine, Settings(benchmark_device="cpu", benchmark_replicas=4), GENERATION, {})
    assert not isinstance(made, Replicated)


def test_two_replicas_of_a_model_answer_as_one_does(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "tiny")
    settings = Settings(
        benchmark_model=str(tmp_path / "tiny"), benchmark_device="cpu", benchmark_dtype="float32", benchmark_replicas=2
    )
    queries = [query(index, f"Explain the number {index}.") for index in range(6)]
    heard, alone = Heard(), Heard()
    engine = make_engine("continuous", settings, GENERATION, {})
    try:
        info = engine.load()
        for one in queries:
            engine.submit(one, heard)
        heard.wait(len(queries))
    finally:
        engine.close()
    assert info.replicas == 2
    assert info.details["torch_threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    one_at_a_time = sequential.Engine(settings, GENERATION, {})
    one_at_a_time.load()
    for one in queries:
        one_at_a_time.submit(one, alone)
    assert heard.tokens == alone.tokens
