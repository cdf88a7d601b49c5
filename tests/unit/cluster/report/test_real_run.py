"""The report of a real run, in the browser; with `--pictures DIR` also the pictures of the documentation."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmark.cli import main
from benchmark.files import read_record
from benchmark.records import ClusterResult
from tests.unit.cluster.report.browser import chromium, keep_picture, opened
from tests.unit.cluster.report.real_run import NODES, real_run


def test_a_real_run_has_its_report_in_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    run_dir = real_run(tmp_path)
    main(["aggregate", str(run_dir)])
    assert "4 of 4 counted" in capsys.readouterr().out
    result = read_record(run_dir / "aggregated_datacenter_results.json", ClusterResult)
    lines = list(csv.DictReader(io.StringIO((run_dir / "nodes.csv").read_text())))
    assert [line["node"] for line in lines] == list(NODES)
    assert [float(line["qps"]) for line in lines] == [row.metrics.qps for row in result.nodes if row.metrics]
    markdown = MarkdownIt("commonmark").enable("table").render((run_dir / "benchmark_summary.md").read_text())
    assert all(f"<td>{node}</td>" in markdown for node in NODES)
    assert "SIMULATED" in markdown
    with chromium() as browser:
        page = run_dir / "report.html"
        with opened(browser, page, 1100) as seen:
            assert (seen.said, seen.asked, seen.overflow()) == ([], [page.as_uri()], 0)
            assert "SIMULATED" in seen.page.inner_text("header")
            charts = seen.charts()
            for node in NODES:
                assert len(charts["latency_ms-1"].points(f"latency_ms:{node}")) == 81
                assert charts["timeline-1-wide"].points(f"tokens_per_s:{node}", 1)
            for part, file in PICTURES.items():
                keep_picture(pytestconfig, file, seen.picture(part))
        with opened(browser, page, 360, "dark") as seen:
            assert seen.overflow() == 0
            keep_picture(pytestconfig, "report-phone.png", seen.page.screenshot())


# What is shown in docs/reading-a-report.md: part of the page -> file.
PICTURES = {
    "header": "report-top.png",
    "#nodes": "report-nodes.png",
    "#findings": "report-slow.png",
    "#distributions": "report-distributions.png",
    "#timeline": "report-timeline.png",
    "#checks": "report-checks.png",
}
