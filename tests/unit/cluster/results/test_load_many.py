"""Many nodes' files are read by several processes, with the same outcome."""

from pathlib import Path

import pytest

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.results import load_many
from benchmark.cluster.results.load import LoadedNode, load_node
from benchmark.records import RunRecord, Slo
from tests.unit.building import add_node, asked, make_run


def run_of_many(directory: Path) -> Path:
    """Write a run in which one node is fine, one is missing, one is damaged and one lies."""
    resolved = asked(20)
    names = ["jw1", "jw2", "jw3", "jw4", "jw10"]
    make_run(directory, dict.fromkeys(names, resolved))
    for number, name in enumerate(names[:1] + names[2:]):
        add_node(directory, name, resolved, [1000 + 17 * index + number for index in range(20)])
    (directory / "nodes/jw3/samples.jsonl").write_text("nonsense\n{}\n")
    lines = (directory / "nodes/jw4/samples.jsonl").read_text().splitlines(keepends=True)
    (directory / "nodes/jw4/samples.jsonl").write_text("".join(lines[:-1]))
    return directory


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = run_of_many(tmp_path)
    alone = aggregate(run_dir)
    monkeypatch.setattr(load_many, "SMALL", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    here: list[str] = []

    def noticed(run_dir: Path, run: RunRecord, node: str, slo: Slo | None) -> LoadedNode:
        here.append(node)
        return load_node(run_dir, run, node, slo)

    monkeypatch.setattr(load_many, "load_node", noticed)
    together = gather(run_dir)
    assert not here, "they were read in other processes"
    assert together.result == alone
    assert [node.node for node in together.nodes] == ["jw1", "jw2", "jw3", "jw4", "jw10"]
    assert [row.status for row in alone.nodes] == ["complete", "missing", "refused", "refused", "complete"]
