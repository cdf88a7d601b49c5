"""Each node measures alone before all do together, over real SSH; what they share shows as a difference."""

from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import DATA, Playbooks
from tests.integration.ssh_nodes import loopback


def profile(directory: Path, name: str, **options: Any) -> str:
    """Write the fast profile with other options of its engine, and enough queries that the nodes meet."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    content |= {"samples": 20, "engine_options": {"ttft_ms": 5, "tpot_ms": 1, **options}}
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_what_nodes_share_shows(playbooks: Playbooks) -> None:
    node = playbooks.cluster.add("jw4", loopback(4))
    # Most of a query's time goes by while a lock is held that jw2 and jw3 share.
    shared = {"shared": str(playbooks.directory / "lock"), "shared_ms": 100}
    profiles = {
        "jw2": profile(playbooks.directory, "sharing", **shared),
        "jw3": profile(playbooks.directory, "sharing", **shared),
        "jw4": profile(playbooks.directory, "broken", break_at=5),
    }
    hosts = {name: {**playbooks.cluster.host(name), "benchmark_profile": path} for name, path in profiles.items()}
    inventory = playbooks.inventory(hosts, benchmark_solo_first=True, benchmark_min_nodes=2)
    try:
        done = playbooks.run("benchmark", inventory=inventory)
    finally:
        node.stop()
        del playbooks.cluster.nodes["jw4"]
    assert "3 nodes measure alone, one after another, before all measure together." in done.output
    assert done.code != 0
    assert (done.recap("jw2")["failed"], done.recap("jw3")["failed"], done.recap("jw4")["failed"]) == (0, 0, 1)
    broken = done.row("jw4")
    assert (broken["status"], broken["solo"]) == ("failed", [])
    assert "Failed while measuring alone" in broken["reason"]
    for name in ("jw2", "jw3"):
        row = done.row(name)
        assert row["counted"], done.output
        changes = {one["metric"]: one for one in row["solo"]}
        # Two that take turns at what takes nearly all the time: half each, and twice as late.
        assert changes["qps"]["change"] < -0.2
        assert changes["latency_ms.p99"]["together"] > changes["latency_ms.p99"]["alone"]
        assert (done.run_dir / "nodes" / name / "solo_samples.jsonl").read_text().count("\n") == 20
    assert done.cluster["overlap"]["together_s"] > 0
    assert done.cluster["verdict"]["valid"], done.summary
    assert "Alone, then together" in done.summary
