import threading
from pathlib import Path

import pytest

from benchmark.errors import RunError
from benchmark.files import SampleWriter, read_samples
from benchmark.node.interfaces import Answer, Conditions, Engine, Listener, Prompt, Query, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.scenarios import closed_loop
from benchmark.profiles import Generation
from benchmark.records import EngineInfo, Sample
from benchmark.settings import Settings


class Answering(Engine):
    """Answers each query by the rule it was given."""

    def __init__(self, rule: dict[int, str]) -> None:
        super().__init__(Settings(), Generation(), {})
        self.rule = rule

    def load(self) -> EngineInfo:
        return EngineInfo(name="answering")

    def submit(self, query: Query, listener: Listener) -> None:
        match self.rule.get(query.index, "answer"):
            case "answer":
                listener.first_token(query, now_ns())
                listener.completed(query, now_ns(), Answer.of(3, (1, 2)))
            case "later":
                threading.Thread(target=self._later, args=(query, listener)).start()
            case "raise":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case "refuse":
                raise RunError("The prompt has no tokens.")
            case "nothing":
                listener.completed(query, now_ns(), Answer.of(3, ()))
            case "fail":
                listener.failed(query, "")

    def _later(self, query: Query, listener: Listener) -> None:
        listener.first_token(query, now_ns())
        listener.completed(query, now_ns(), Answer.of(3, (7,)))


HERE = Conditions(Path(), target_qps=1)


def workload(count: int) -> Workload:
    return Workload(tuple(Prompt(id=f"p{i}", text="t") for i in range(count)), count, seed=0)


def record(rule: dict[int, str], count: int, path: Path) -> list[Sample]:
    writer = SampleWriter(path)
    recorder = Recorder(Answering(rule), writer, now_ns(), lambda sample, done: None)
    closed_loop.Scenario({}).run(workload(count), recorder, HERE)
    writer.close()
    return recorder.samples


def test_every_query_becomes_one_sample(tmp_path: Path) -> None:
    samples = record({1: "later"}, 4, tmp_path / "samples.jsonl")
    assert [s.index for s in samples] == [0, 1, 2, 3]
    assert read_samples(tmp_path / "samples.jsonl") == samples
    assert samples[1].token_ids == (7,)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("raise", "RuntimeError: CUDA error: an illegal memory access was encountered"),
        ("refuse", "The prompt has no tokens."),
        ("nothing", "The engine generated no token."),
        ("fail", "The engine gave no reason."),
    ],
)
def test_a_query_without_an_answer_is_a_failed_sample(tmp_path: Path, behaviour: str, said: str) -> None:
    samples = record({1: behaviour}, 3, tmp_path / "samples.jsonl")
    assert [s.error for s in samples] == [None, said, None]
    assert samples[1].completed_ns is None


def test_the_closed_loop_schedules_a_query_at_the_last_ones_end(tmp_path: Path) -> None:
    samples = record({1: "fail"}, 3, tmp_path / "samples.jsonl")
    first, failed, last = samples
    assert failed.scheduled_ns == first.completed_ns
    assert last.scheduled_ns is not None
    assert last.scheduled_ns >= failed.issued_ns


def test_a_sample_that_cannot_be_written_ends_the_run() -> None:
    writer = SampleWriter.__new__(SampleWriter)
    descriptor = __import__("os").open("/dev/full", __import__("os").O_WRONLY)
    writer._descriptor = descriptor
    recorder = Recorder(Answering({}), writer, now_ns(), lambda sample, done: None)
    with pytest.raises(OSError, match="No space left"):
        closed_loop.Scenario({}).run(workload(2), recorder, HERE)
    assert len(recorder.samples) == 1
