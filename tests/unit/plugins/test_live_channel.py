"""The pipe from the workers to the process that draws."""

import multiprocessing
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "shared"))

from live_channel import Channel

from benchmark.progress import Progress


def _work(channel: Channel, number: int) -> None:
    for done in range(100):
        channel.send(f"node{number}", Progress("measuring", done, 100, 1.5))


def test_what_forked_workers_send_arrives_whole_and_in_order() -> None:
    channel = Channel()
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(channel, number)) for number in range(4)]
    heard: dict[str, list[int]] = {}
    for worker in workers:
        worker.start()
    while len(heard) < 4 or any(len(each) < 100 for each in heard.values()):
        for node, progress in channel.receive():
            assert progress == Progress("measuring", progress.done, 100, 1.5)
            heard.setdefault(node, []).append(progress.done)
    for worker in workers:
        worker.join()
    assert heard == {f"node{number}": [*range(100)] for number in range(4)}
    assert [*channel.receive()] == []


def test_a_full_pipe_makes_nobody_wait() -> None:
    channel = Channel()
    for done in range(10_000):
        channel.send("node", Progress("measuring", done, 10_000))
    heard = [progress.done for _, progress in channel.receive()]
    assert heard == [*range(len(heard))]
    assert 0 < len(heard) < 10_000
    channel.send("node", Progress("done"))
    assert [*channel.receive()] == [("node", Progress("done"))]
