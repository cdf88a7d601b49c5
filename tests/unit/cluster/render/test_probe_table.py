"""The table of probes: in the place of that of queries where there are none, and below it where there are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.junit import render_junit
from benchmark.cluster.render.summary import render_cluster
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import add_node, add_probed, asked, hardware, make_run, probes

QUERY_WORDS = ("QPS", "Queries", "undefined", "latency", "tok/s", "tokens")


def run_of(directory: Path, count: int, gpus: int = 8) -> Path:
    """Write a run of the profile hardware; the second node has a slow GPU."""
    names = [f"gpu{number}" for number in range(1, count + 1)]
    make_run(directory, dict.fromkeys(names, hardware()))
    for number, name in enumerate(names):
        add_probed(directory, name, hardware(), probes(gpus, 1 - number / 1000, slow=5 if number == 1 else None))
    return directory


def summary(run_dir: Path) -> str:
    gathered = gather(run_dir)
    return render_cluster(gathered.result, gathered.run)


def test_two_nodes_of_eight_gpus(tmp_path: Path) -> None:
    text = summary(run_of(tmp_path, 2))
    assert (
        """\
NVIDIA H200: 2 nodes, 16 GPUs

               device                     sustained
               memory    kernel    matrix    matrix
                 read    launch  bfloat16  bfloat16 peer copy
node             GB/s        us   TFLOP/s   TFLOP/s      GB/s  verdict
gpu1             4100      2.00       700       650       384  valid
gpu2            4096!      2.00       699       649       383  valid
median           4098      2.00       700       650       383

                                          sustained
                                          throttled
                  all   cpu one sustained  sw power     wrong
               reduce      core     clock       cap  products
node             GB/s      MB/s       MHz                      verdict
gpu1              470       600      1700       40%         0  valid
gpu2              470       599      1700       40%         0  valid
median            470       600      1700       40%         0
! gpu2: device memory read 3277 GB/s on GPU 5, -20.0% against the median
  of the node
"""
        in text
    )
    assert "\nProbes      25.0 s on each node\n" in text


@pytest.mark.parametrize("count", [1, 20])
def test_no_word_of_queries_where_none_was_asked(tmp_path: Path, count: int) -> None:
    run_dir = run_of(tmp_path, count)
    gathered = gather(run_dir)
    outcome = Outcome(gathered.run, gathered.result)
    texts = [render_cluster(gathered.result, gathered.run), render_job_summary(outcome)]
    for text in texts:
        assert not [word for word in QUERY_WORDS if word in text]
        assert all(f"gpu{number}" in text for number in range(1, count + 1))
    assert max(map(columns, texts[0].splitlines())) <= WIDTH
    assert ("median  " in texts[0]) == (count > 1)


def test_probes_stand_below_queries(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": asked(3), "gpu2": asked(3)})
    for node in ("gpu1", "gpu2"):
        found = probes(1, notes=("GPU 0: sustained: out of memory",))
        add_node(tmp_path, node, asked(3), [1700.0, 1800.0, 1900.0], probes=found)
    text = summary(tmp_path)
    assert text.index("Queries     6 of 6") < text.index("Hardware probes, before the engine loaded")
    assert "Not probed  gpu1, gpu2: GPU 0: sustained: out of memory" in text
    assert text.count("verdict") == 1


def test_figures_that_one_node_lacks_are_dashes(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": hardware(), "gpu2": hardware(), "gpu3": hardware()})
    add_probed(tmp_path, "gpu1", hardware(), probes(2))
    add_probed(tmp_path, "gpu2", hardware(), probes(2, between_gpus={}, notes=("between the GPUs: it failed",)))
    text = summary(tmp_path)
    (row,) = (line for line in text.splitlines() if line.startswith("gpu2 ") and "INVALID" in line and "4100" in line)
    assert row.split() == ["gpu2", "4100", "2.00", "700", "650", "-", "INVALID"]
    assert "between the GPUs: it failed" in text


def test_an_interrupted_probe_is_of_no_queries(tmp_path: Path) -> None:
    make_run(tmp_path, {"gpu1": hardware()})
    add_probed(tmp_path, "gpu1", hardware(), None, status="interrupted", stage="probes", verdict=None)
    text = summary(tmp_path)
    assert "Interrupted while its hardware was probed." in text
    assert "quer" not in text


def test_junit_has_every_figure_as_a_property(tmp_path: Path) -> None:
    gathered = gather(run_of(tmp_path, 2))
    suite = ElementTree.fromstring(render_junit(Outcome(gathered.run, gathered.result))).find("testsuite")
    assert suite is not None
    assert suite.get("time") == "25.000"
    found = {one.get("name"): one.get("value") for one in suite.iterfind("properties/property")}
    assert found["device memory read, GPU 7"] == "4100 GB/s"
    assert found["peer copy, GPU 0 to 1"] == "380 GB/s"
    assert found["cpu one core"] == "600 MB/s"
