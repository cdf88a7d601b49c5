"""A further attempt at a sweep begins, on all nodes, with the step that one of them lacks of what lies on them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import DATA
from tests.unit.fleet.by_hand import Fleet
from tests.unit.queues import S, queue, write_sweep

STEPS = (1, 2, 4, 8)


@pytest.mark.parametrize(("wait_s", "firsts"), [(60, (2, 2, 2)), (None, (4, 2, 3))], ids=["together", "each alone"])
def test_nodes_agree_on_the_step_after_what_lies_on_them(
    wait_s: int | None, firsts: tuple[int, ...], fleet: Fleet, tmp_path: Path
) -> None:
    content = {**yaml.safe_load((DATA / "fast.yaml").read_text()), "sweep": {"concurrency": list(STEPS)}}
    del content["samples"], content["engine_options"]
    path = tmp_path / "ladder.yaml"
    path.write_text(yaml.safe_dump({**content, "limits": content["limits"][:1]}))
    for name, measured in (("jw2", 3), ("jw3", 1), ("jw4", 2)):
        node = fleet.add(
            name,
            "echo no more >&2; exit 4",
            order={"attempt": 2, "wait_s": wait_s, "measurements": 4},
            benchmark_profile=str(path),
        )
        steps = {users: queue(users, 8, [S] * 4 * users) for users in STEPS[:measured]}
        killed: dict[str, Any] = {
            "status": "interrupted",
            "stage": "ready",
            "metrics": None,
            "verdict": None,
            "sweep_ended": "",
        }
        (tmp_path / "made/nodes" / name).mkdir(parents=True)
        left = write_sweep(tmp_path / "made", name, node.order.resolved, steps, **killed)
        for file, words in (
            ("order.json", '{\n  "attempt": 1\n}\n'),
            ("owner", "ours\nalice on here\n"),
            ("pid", "1\n"),
        ):
            (left / file).write_text(words)
        fleet.there(name).parent.mkdir(parents=True)
        left.rename(fleet.there(name))
    # It cannot be reached, and nobody waits for it.
    fleet.add("gone", call=lambda line: ["false"], order={"attempt": 2, "wait_s": wait_s}, benchmark_profile=str(path))
    fleet.measure()
    orders = [json.loads((fleet.nodes[name].place / "order.json").read_text()) for name in ("jw2", "jw3", "jw4")]
    assert tuple(order["first_step"] for order in orders) == firsts
    assert [order["first_step"] - 1 + order["measurements"] for order in orders] == [4, 4, 4]
    assert ("jw2", f"resumes with step {firsts[0]} of 4") in fleet.messages
    assert (fleet.nodes["jw2"].place / "attempt-1" / "repeat3_samples.jsonl").stat().st_size, "and nothing is lost"
