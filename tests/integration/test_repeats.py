"""The model loaded once and measured three times, over real SSH: each time on all nodes at once, one is the result."""

import json
from pathlib import Path

import yaml

from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.side import load_side
from benchmark.files import read_samples
from benchmark.rundir import of_repeat
from tests.integration.conftest import DATA, Playbooks


def profile(directory: Path) -> str:
    """Write the fast profile with queries that differ."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    path = directory / "uneven.yaml"
    path.write_text(yaml.safe_dump(content | {"engine_options": {"ttft_ms": 20, "tpot_ms": 5, "spread": 0.2}}))
    return str(path)


def test_each_repeat_is_measured_together(playbooks: Playbooks) -> None:
    inventory = playbooks.inventory(benchmark_profile=profile(playbooks.directory), benchmark_repeats=3)
    done = playbooks.run("benchmark", inventory=inventory)
    assert done.code == 0, done.output
    repeats = done.cluster["repeats"]
    assert [row["valid"] for row in repeats["rows"]] == [2, 2, 2]
    # Each starts when the agreed time comes, and no node begins one before all have ended the last.
    starts = [json.loads((done.run_dir / of_repeat("start.json", n)).read_text()) for n in (1, 2, 3)]
    assert [len(start["nodes"]) for start in starts] == [2, 2, 2]
    windows = []
    for name in ("jw2", "jw3"):
        place = done.run_dir / "nodes" / name
        (path,) = place.glob("mlperf_datacenter_*.json")
        result = json.loads(path.read_text())
        windows.append([result["window"], *(repeat["window"] for repeat in result["repeats"])])
        for number, window, start in zip((1, 2, 3), windows[-1], starts, strict=True):
            clock = json.loads((place / of_repeat("ready.json", number)).read_text())
            assert window["asked_unix_ns"] == start["start_unix_ns"] + clock["offset_ns"], "one start for all"
            assert len(read_samples(place / of_repeat("samples.jsonl", number))) == 8
            assert (place / of_repeat("telemetry.jsonl", number)).is_file()
        # Loaded once: the engine's stage is there once, and so is the warm-up.
        assert (place / "benchmark.log").read_text().count(": loading") == 1
    for before, after in ((0, 1), (1, 2)):
        ended = max(node[before]["ended_unix_ns"] for node in windows)
        assert ended <= min(node[after]["started_unix_ns"] for node in windows)
    for row in repeats["rows"]:
        assert row["overlap"]["uncertainty_ms"] is not None, "the clocks were measured again for this repeat"
    values = [row["value"] for row in repeats["rows"]]
    assert values[repeats["chosen"] - 1] == sorted(values)[1]
    # Everything is of that one repeat.
    (group,) = done.cluster["groups"]
    assert group["qps"] == values[repeats["chosen"] - 1]
    assert done.cluster["overlap"] == repeats["rows"][repeats["chosen"] - 1]["overlap"]
    for name in ("jw2", "jw3"):
        row = done.row(name)
        (qps,) = (one for one in row["spread"] if one["metric"] == "qps")
        assert row["metrics"]["qps"] == qps["values"][repeats["chosen"] - 1]
    assert f"repeat {repeats['chosen']}, the median by QPS" in " ".join(done.summary.split())
    side = load_side(done.run_dir)
    assert [len(node.repeats) for nodes in side.groups.values() for node in nodes] == [3, 3]
    assert compare(side, side).outcome == "no difference"
