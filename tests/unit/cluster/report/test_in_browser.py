"""The page as a reader gets it: opened from disk in headless Chromium."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pypdf import PdfReader

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.report.page import render_report
from benchmark.columns import Columns
from benchmark.files import read_samples, read_ticks
from benchmark.metrics import latencies_ms, percentile, tpots_ms, ttfts_ms
from benchmark.text.columns import clean
from tests.unit.building import asked, make_run, probes
from tests.unit.cluster.report import runs
from tests.unit.cluster.report.browser import Chart, Scheme, chromium, keep_picture, opened
from tests.unit.probed_runs import store

MEGABYTE = 1_000_000
SCHEMES: tuple[tuple[Scheme, int], ...] = (("light", 1440), ("dark", 360))
REPORTS = ("1", "2", "20", "200", "partly failed", "hostile", "nothing came back", "hardware")


@dataclass(frozen=True)
class Report:
    """A page on the disk, the run that it shows, and where that lies."""

    path: Path
    gathered: Gathered
    run_dir: Path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Every report once."""
    made = {}
    for name in REPORTS:
        run_dir = tmp_path_factory.mktemp("run")
        if name == "partly failed":
            gathered = gather(runs.partly_failed(run_dir))
        elif name == "hostile":
            gathered = runs.hostile(run_dir)
        elif name == "nothing came back":
            gathered = gather(make_run(run_dir, {"jw2": asked(3)}))
        elif name == "hardware":
            nodes = {f"gpu-{n:03}": probes(2, 1 - n / 1000, slow=1 if n == 7 else None) for n in range(1, 21)}
            gathered = gather(store(run_dir, 1, nodes))
        else:
            many = int(name) > 20
            runs.cluster(run_dir, int(name), *((50, 2000) if many else (20, 100)), measured_often=name == "20")
            gathered = gather(run_dir)
        path = run_dir / "report.html"
        path.write_text(render_report(gathered, run_dir), encoding="utf-8")
        made[name] = Report(path, gathered, run_dir)
    return made


@pytest.mark.parametrize("name", REPORTS)
def test_it_opens_from_disk_alone_and_fits_a_phone_and_a_desk(
    browser: Browser, reports: dict[str, Report], name: str
) -> None:
    path = reports[name].path
    assert path.stat().st_size < 2 * MEGABYTE
    for width in (360, 1440):
        with opened(browser, path, width) as seen:
            assert seen.said == []
            assert seen.asked == [path.as_uri()]
            assert seen.overflow() == 0, width
            seen.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert seen.overflow() == 0, f"{width}, unfolded"


@pytest.mark.parametrize("name", ["20", "partly failed", "hostile", "hardware"])
def test_it_is_accessible_by_day_and_by_night(browser: Browser, reports: dict[str, Report], name: str) -> None:
    for scheme, width in SCHEMES:
        with opened(browser, reports[name].path, width, scheme) as seen:
            assert seen.serious() == [], scheme


def test_the_answer_stands_at_the_top(browser: Browser, reports: dict[str, Report]) -> None:
    tops = {}
    for name in ("20", "partly failed", "nothing came back"):
        with opened(browser, reports[name].path) as seen:
            tops[name] = " ".join(seen.page.inner_text("header").split())
    group = reports["20"].gathered.result.groups[0]
    assert group.qps is not None
    assert group.tokens_per_s is not None
    for words in ("unverified, not an MLCommons submission", "Valid", f"{group.qps:.1f} QPS", "20 of 20 nodes"):
        assert words in tops["20"]
    assert f"{group.tokens_per_s:.0f} tokens/s" in tops["20"]
    assert "gpu-007 is slow QPS is 0.5" in tops["20"]
    assert "Probable cause: thermal throttling." in tops["20"]
    assert "2 of 4 nodes are not counted: jw4, jw5. 1 of 4 nodes is invalid: jw3." in tops["partly failed"]
    assert "jw4 is not counted Failed while measuring, after 9 of 20 queries. CUDA error:" in tops["partly failed"]
    assert "Invalid" in tops["nothing came back"]
    assert "0 of 1 nodes" in tops["nothing came back"]


TIMES = {"latency_ms": latencies_ms, "ttft_ms": ttfts_ms, "tpot_ms": tpots_ms}


@pytest.mark.parametrize("name", ["1", "2", "20", "200", "partly failed"])
def test_distributions_are_drawn_with_the_samples_own_values(
    browser: Browser, reports: dict[str, Report], name: str
) -> None:
    report = reports[name]
    with opened(browser, report.path) as seen:
        charts = seen.charts()
    counted = [node.node for node in report.gathered.nodes if node.counted]
    for metric, times in TIMES.items():
        chart = charts[f"{metric}-1"]
        for node in counted:
            samples = read_samples(report.run_dir / "nodes" / node / "samples.jsonl")
            ordered = sorted(times(Columns.of(samples)).tolist())
            _check_curve(chart, f"{metric}:{node}", ordered)
        assert sum(one.startswith(metric) for one in chart.names()) == len(counted)
    (limit, _), _ = charts["latency_ms-1"].points("limit:latency_ms")
    assert limit == pytest.approx(3000, abs=charts["latency_ms-1"].resolution()[0])


def _check_curve(chart: Chart, name: str, ordered: list[float]) -> None:
    """Hold a drawn curve against the sorted times: each of its points is one of them, at its own share."""
    fine_x, fine_y = chart.resolution()
    start, *points = chart.points(name)
    assert start == pytest.approx((ordered[0], 0), abs=max(fine_x, fine_y))
    ranks = [round(share / 100 * len(ordered)) for _, share in points]
    assert ranks == sorted(set(ranks))
    for rank, (value, share) in zip(ranks, points, strict=True):
        assert share == pytest.approx(100 * rank / len(ordered), abs=fine_y)
        assert value == pytest.approx(ordered[rank - 1], abs=fine_x)
    assert ranks[-1] == len(ordered)
    drawn = {ordered[rank - 1] for rank in ranks}
    assert {percentile(ordered, part) for part in (0.5, 0.9, 0.95, 0.99)} <= drawn


def test_the_timeline_is_drawn_with_samples_and_ticks(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["2"]
    with opened(browser, report.path) as seen:
        charts = seen.charts()
    for place in ("wide", "narrow"):
        chart = charts[f"timeline-1-{place}"]
        for node in ("jw2", "jw3"):
            samples = read_samples(report.run_dir / "nodes" / node / "samples.jsonl")
            times = [time for time, _ in chart.points(f"tokens_per_s:{node}", 1)]
            width_s = 2 ** round(math.log2((times[-1] - times[0]) / (len(times) - 1) * 1000)) / 1000
            assert times == pytest.approx([(n + 0.5) * width_s for n in range(len(times))], abs=chart.resolution(1)[0])
            end_s = max(s.completed_ns or 0 for s in samples) / 1e9
            inside = [min(width_s, end_s - n * width_s) for n in range(len(times))]
            rates = [rate for _, rate in chart.points(f"tokens_per_s:{node}", 1)]
            tokens = math.fsum(rate * s for rate, s in zip(rates, inside, strict=True))
            assert tokens == pytest.approx(sum(s.output_tokens for s in samples), rel=0.01)
            in_flight = [number for _, number in chart.points(f"in_flight:{node}", 0)]
            assert in_flight == pytest.approx([1] * len(times), abs=0.01)
            ticks = list(read_ticks(report.run_dir / "nodes" / node / "telemetry.jsonl"))
            for row, field in ((2, "sm_clock_mhz"), (3, "power_w"), (4, "temperature_c"), (5, "cpu_percent")):
                bins: dict[int, list[float]] = {}
                for tick in ticks:
                    if 0 <= tick.t_ns < end_s * 1e9:
                        value = getattr(tick if field == "cpu_percent" else tick.gpus[0], field)
                        bins.setdefault(tick.t_ns // round(width_s * 1e9), []).append(value)
                means = [math.fsum(values) / len(values) for _, values in sorted(bins.items())]
                drawn = [value for _, value in chart.points(f"{field}:{node}", row)]
                assert drawn == pytest.approx(means, abs=max(chart.resolution(row)[1], 0.002 * means[0]))


def test_energy_stands_in_the_page_with_what_it_is_not(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["20"]
    (group,) = report.gathered.result.groups
    assert group.energy_joules is not None
    with opened(browser, report.path) as seen:
        words = seen.page.inner_text("#energy")
        goodput = " ".join(seen.page.inner_text("#goodput").split())
    assert group.cost is not None
    assert f"USD {group.cost.per_million_output_tokens:,.1f}" in words
    assert "each carry the whole price" in words
    assert goodput.count("100 % 20 ") == 20
    assert "within TTFT 500 ms and TPOT 50 ms" in goodput
    assert "on 20 of 20 nodes, not measured at the wall socket" in words
    assert f"{group.energy_joules:,.0f}" in words


def test_a_hot_node_is_a_picture_of_the_documentation(
    browser: Browser, reports: dict[str, Report], pytestconfig: pytest.Config
) -> None:
    with opened(browser, reports["20"].path, 1100) as seen:
        words = seen.page.inner_text("#findings")
        keep_picture(pytestconfig, "report-heat.png", seen.picture("#timeline"))
    assert "Probable cause: thermal throttling." in words


def test_the_ranking_is_drawn_with_the_nodes_own_values(browser: Browser, reports: dict[str, Report]) -> None:
    for name in ("20", "200"):
        report = reports[name]
        with opened(browser, report.path) as seen:
            charts = seen.charts()
        qps = {row.node: row.metrics.qps for row in report.gathered.result.nodes if row.metrics}
        best_first = sorted(qps, key=lambda node: -(qps[node] or 0))
        for place in ("wide", "narrow"):
            chart = charts[f"ranking-1-{place}"]
            for number, node in enumerate(best_first):
                ((x, y),) = chart.points(f"rank:{node}")
                value, rank = (x, y) if name == "20" else (y, x - 1)
                axis = 0 if name == "20" else 1
                assert value == pytest.approx(qps[node], abs=chart.resolution()[axis])
                assert rank == pytest.approx(number, abs=0.1)


def test_probes_are_drawn_with_each_gpus_own_values(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["hardware"]
    with opened(browser, report.path) as seen:
        charts = seen.charts()
    for place in ("wide", "narrow"):
        chart = charts[f"probe-device_memory_read-1-{place}"]
        for row in report.gathered.result.nodes:
            assert row.probes is not None
            for gpu in row.probes.gpus:
                ((value, _),) = chart.points(f"probe:device_memory_read:{row.node}:GPU {gpu.index}")
                wanted = gpu.figures["device_memory_read"].value
                assert value == pytest.approx(wanted, abs=chart.resolution()[0])


TIMES_REPEATED = ("P50 latency", "P99 latency", "P99 TTFT")
TABLES = {
    "ranking": ("Nodes, best first",),
    "latency_ms": ("Latency per node",),
    "ttft_ms": ("Time to first token (TTFT) per node",),
    "tpot_ms": ("Time per output token (TPOT) per node",),
    "repeats": tuple(f"{figure} in each repeat" for figure in ("QPS", *(f"{p} ms" for p in TIMES_REPEATED))),
    "sharing": ("Alone, then together: largest loss first",),
    "timeline": (
        *("Queries in flight", "Output tokens, tokens/s", "GPU clock, MHz", "Power of a GPU, W"),
        *("Temperature of a GPU, \N{DEGREE SIGN}C", "CPU load of all cores, %"),
    ),
}


def test_repeats_and_turns_alone_are_drawn_with_their_own_values(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["20"]
    reported = report.gathered.result.repeats
    assert reported is not None
    with opened(browser, report.path) as seen:
        charts = seen.charts()
        words = " ".join(seen.page.inner_text("#repeats").split())
        lost = seen.page.locator("#alone tr.out").all_inner_texts()
        top = seen.page.evaluate("document.querySelector('header').textContent")
    fills: dict[str, set[str]] = {}
    for place in ("wide", "narrow"):
        for row in report.gathered.result.nodes:
            drawn = {name: charts[f"{name}-1-{place}"] for name in ("repeats", "sharing")}
            (spread,) = (one for one in row.spread if one.metric == "qps")
            (solo,) = (one for one in row.solo if one.metric == "qps")
            fine = drawn["repeats"].resolution()[0]
            for number, value in enumerate(spread.values, start=1):
                name = f"repeat-{number}:{row.node}"
                assert drawn["repeats"].points(name)[0][0] == pytest.approx(value, abs=fine)
                fills.setdefault("counts" if number == reported.chosen else "other", set()).add(
                    drawn["repeats"].fill(name)
                )
            for name, value in (("alone", solo.alone), ("together", solo.together)):
                (point,) = drawn["sharing"].points(f"{name}:{row.node}")
                assert point[0] == pytest.approx(value, abs=drawn["sharing"].resolution()[0])
    assert fills["other"] == {"var(--paper)"}
    assert not fills["counts"] & fills["other"]
    assert words.count("not stable") > 1
    assert [row.split()[0] for row in lost] == [runs.SHARING]
    assert "gpu-009 is slower together than alone" in top


def test_every_chart_has_its_values_as_a_table(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["20"]
    with opened(browser, report.path) as seen:
        charts = seen.charts()
        captions = seen.page.evaluate("[...document.querySelectorAll('caption')].map(c => c.textContent)")
        texts = seen.page.evaluate("[...document.querySelectorAll('tr')].map(row => row.textContent)")
    assert {name.split("-")[0] for name in charts} == set(TABLES)
    assert {caption for wanted in TABLES.values() for caption in wanted} <= set(captions)
    for row in report.gathered.result.nodes:
        assert row.metrics is not None
        for spread in (row.metrics.latency_ms, row.metrics.ttft_ms, row.metrics.tpot_ms):
            assert spread is not None
            p99 = f"{spread.p99:,.0f}" if spread.p99 >= 100 else f"{spread.p99:.1f}"
            assert any(text.startswith(row.node) and p99 in text for text in texts), (row.node, p99)


def test_what_nodes_say_is_shown_and_does_nothing(browser: Browser, reports: dict[str, Report]) -> None:
    report = reports["hostile"]
    source = report.path.read_text(encoding="utf-8")
    assert all(character.isprintable() or character == "\n" for character in source)
    with opened(browser, report.path) as seen:
        counts = seen.page.evaluate(
            "['script', 'img', 'style', 'link', 'iframe', 'title'].map(tag => document.querySelectorAll(tag).length)"
        )
        harmed = seen.page.evaluate("window.harmed")
        words = seen.page.evaluate("document.body.textContent")
    assert counts == [0, 0, 1, 0, 0, 1]
    assert harmed is None
    reported = clean(runs.HOSTILE)
    assert "{{ 7 * 7 }}" in reported
    # Reason, problem, end, cause, evidence, fact, value, package, driver, command: each as text.
    assert words.count(reported) > 8
    assert words.count(clean(runs.HOSTILE[:40])) > 12


@pytest.mark.parametrize("name", ["20", "200"])
def test_it_prints_legibly(browser: Browser, reports: dict[str, Report], name: str) -> None:
    with opened(browser, reports[name].path, scheme="dark") as seen:
        pdf = PdfReader(io.BytesIO(seen.page.pdf(format="A4")))
    # A font's ligatures are letters again.
    text = [" ".join(unicodedata.normalize("NFKC", page.extract_text()).split()) for page in pdf.pages]
    assert 0 < len(text) < 60
    words = " ".join(text)
    assert "Look at this first" in text[0]
    assert "unverified, not an MLCommons submission" in text[0]
    for row in reports[name].gathered.result.nodes:
        assert row.node in words
    # Folded tables are unfolded on paper, and a chart's text is text.
    for reported in ("TPOT) per node", "All settings", "P99 limit 3,000 ms", "seconds since the first node began"):
        assert reported in words
