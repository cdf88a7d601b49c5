"""The hardware's probes in the report: for one node, some and many, and beside queries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.report.page import render_report
from benchmark.cluster.report.parts import node_groups
from benchmark.cluster.report.probing import Probed, probing
from benchmark.cluster.report.trend import histories, trend
from tests.unit.building import add_node, asked, make_run, probes
from tests.unit.probed_runs import store

QUERY_WORDS = ("QPS", "latency", "TTFT", "Queries", "undefined", "No query", "Energy")


def gathered_of(directory: Path, count: int, gpus: int = 2) -> Gathered:
    """Return a run of nodes, each a thousandth slower than the one before; the second has a slow GPU."""
    nodes = {
        f"gpu{number}": probes(gpus, 1 - number / 1000, slow=gpus - 1 if number == 2 else None)
        for number in range(1, count + 1)
    }
    return gather(store(directory, 1, nodes))


def probed(directory: Path, gathered: Gathered) -> Probed:
    (like,) = node_groups(directory, gathered.result, gathered.nodes)
    found = probing(like)
    assert found is not None
    return found


def test_every_gpu_is_a_mark_and_nodes_are_ranked(tmp_path: Path) -> None:
    found = probed(tmp_path, gathered_of(tmp_path, 3))
    charts = {chart.title: chart for chart in found.charts}
    assert list(charts) == [
        *("Device memory read", "Kernel launch", "Matrix bfloat16", "Sustained matrix bfloat16", "Peer copy"),
        *("All reduce", "CPU one core"),
    ]
    read = charts["Device memory read"]
    drawn = re.findall(r'data-series="probe:device_memory_read:([^"]*)"', read.wide)
    assert sorted(drawn) == sorted(f"gpu{node}{where}" for node in (1, 2, 3) for where in (":GPU 0", ":GPU 1", ""))
    assert [row[0] for row in read.tables[0].rows] == ["gpu1", "gpu3", "gpu2"]
    assert read.tables[0].rows[2][3:] == ["3,273", "GPU 1", "\N{MINUS SIGN}11%"]
    # Less is better there.
    assert [row[0] for row in charts["Kernel launch"].tables[0].rows] == ["gpu1", "gpu2", "gpu3"]
    assert "1: \N{MINUS SIGN}11%" in read.wide
    assert read.narrow


@pytest.mark.parametrize(("count", "gpus"), [(1, 1), (1, 8), (20, 2), (200, 1)])
def test_a_page_of_the_hardware_alone(tmp_path: Path, count: int, gpus: int) -> None:
    gathered = gathered_of(tmp_path, count, gpus)
    page = render_report(gathered, tmp_path)
    assert not [word for word in QUERY_WORDS if word in page]
    assert [name for name in ("#distributions", "#timeline", "#energy") if name in page] == []
    assert "4,096" in page
    assert "device memory read" in page
    assert len(page) < 2_000_000
    charts = re.findall(r'data-chart="probe-([a-z0-9_]+)-1-wide"', page)
    # Of one node those with several GPUs alone: a chart of one dot says nothing.
    assert len(charts) == {(1, 1): 0, (1, 8): 5, (20, 2): 7, (200, 1): 5}[count, gpus]
    assert ("no like node to compare it with" in page) == (count == 1)


def test_of_many_nodes_only_what_stands_out_is_drawn_apart(tmp_path: Path) -> None:
    found = probed(tmp_path, gathered_of(tmp_path, 60))
    read = found.charts[0]
    assert read.narrow is None
    drawn = re.findall(r'data-series="probe:device_memory_read:([^"]*)"', read.wide)
    assert len(drawn) == 61
    assert "gpu2:GPU 1" in drawn
    assert found.folded


def test_probes_stand_beside_queries(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": asked(3), "gpu2": asked(3)})
    for node in ("gpu1", "gpu2"):
        add_node(tmp_path, node, asked(3), [1700.0] * 3, probes=probes(1, notes=("GPU 0: peers: none",)))
    page = render_report(gather(tmp_path), tmp_path)
    assert 'id="distributions"' in page
    assert 'id="hardware"' in page
    assert "gpu2: GPU 0: peers: none" in page
    assert 'data-series="probe:device_memory_read:gpu2"' in page


def test_a_run_without_probes_has_no_such_section(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": asked(3)})
    add_node(tmp_path, "gpu1", asked(3), [1700.0] * 3)
    assert 'id="hardware"' not in render_report(gather(tmp_path), tmp_path)


def test_the_trend_is_of_what_shifted_and_of_the_first_probe(tmp_path: Path) -> None:
    run_dir = tmp_path
    for day in range(1, 9):
        found = probes(1, node={"cpu_one_core": {"value": 600 if day < 5 else 400, "unit": "MB/s"}})
        run_dir = store(tmp_path, day, {"gpu1": found})
    gathered = gather(run_dir)
    (like,) = node_groups(run_dir, gathered.result, gathered.nodes)
    shown = trend(like, histories(run_dir))
    assert shown is not None
    assert [chart.title for chart in shown.charts] == [
        "device memory read, GB/s in 8 runs with the same settings",
        "cpu one core, MB/s in 8 runs with the same settings",
    ]
    assert shown.since[0].shifts == ["cpu one core \N{MINUS SIGN}33%, 600 to 400 MB/s: worse"]
