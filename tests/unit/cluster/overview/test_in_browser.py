"""The page over all runs as a reader gets it: opened from disk in headless Chromium, at 1, 20 and 300 runs."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from benchmark.cluster.overview.listing import Wanted, list_runs
from benchmark.cluster.overview.write import write_index
from benchmark.records import RunList
from tests.unit.cluster.overview import stored
from tests.unit.cluster.report.browser import chromium, keep_picture, opened

COUNTS = (1, 20, 300)
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the page over so many runs."""
    given = stored.patterns(tmp_path_factory.mktemp("patterns"))
    made = {}
    for count in COUNTS:
        results = tmp_path_factory.mktemp(f"results {count}")
        stored.fill(results, count, given)
        assert write_index(results) == count
        made[count] = results / "index.html"
    return made


def listed(page: Path, **wanted: Any) -> RunList:
    return list_runs(page.parent, Wanted(**wanted))


def shown(page: Page, table: str) -> list[str]:
    """Return the heads of a table's rows that are to be seen."""
    heads: list[str] = page.evaluate(
        """table => [...document.querySelectorAll(`${table} tbody th`)].filter(each => each.checkVisibility())
        .map(each => (each.querySelector('small') && table === '.runs' ? each.querySelector('small') : each.firstChild)
        .textContent)""",
        table,
    )
    return heads


def counted(page: Page) -> str:
    """Return what a screen reader finds above the runs: how many are shown, in generated content too."""
    session = page.context.new_cdp_session(page)
    session.send("Accessibility.enable")
    found = session.send("Runtime.evaluate", {"expression": "document.querySelector('#runs .shown')"})
    asked = {"objectId": found["result"]["objectId"], "role": "StaticText"}
    texts = session.send("Accessibility.queryAXTree", asked)["nodes"]
    session.detach()
    return "".join(one["name"]["value"] for one in texts)


@pytest.mark.parametrize("count", COUNTS)
def test_it_fits_a_phone_and_a_desk_and_is_accessible(browser: Browser, pages: dict[int, Path], count: int) -> None:
    path = pages[count]
    assert path.stat().st_size < MEGABYTE
    for width, scheme in ((360, "dark"), (1440, "light")):
        with opened(browser, path, width, scheme) as seen:  # type: ignore[arg-type]
            assert seen.said == []
            assert seen.asked == [path.as_uri()]
            assert seen.overflow() == 0, width
            assert shown(seen.page, ".runs") == [run.run_id for run in listed(path).runs]
            assert seen.serious() == [], width


def test_each_run_says_how_it_ended_and_leads_to_its_report(
    browser: Browser, pages: dict[int, Path], pytestconfig: pytest.Config
) -> None:
    with opened(browser, pages[20], 1100) as seen:
        keep_picture(pytestconfig, "all-runs.png", seen.page.screenshot())
        rows = [" ".join(row.split()) for row in seen.page.locator(".runs tbody tr").all_inner_texts()]
        links = seen.page.evaluate("[...document.querySelectorAll('.runs th a')].map(a => a.href)")
        seen.page.locator(".runs th a").first.click()
        assert seen.page.title() == "a report"
    newest, _, _, *_ = rows
    assert newest.startswith(f"2025-01-20 10:00 {stored.run_id(19)} no summary quick")
    assert newest.endswith("- of 3 - - It has no summary " + listed(pages[20]).runs[0].why)
    failed = next(row for row in rows if stored.run_id(4) in row)
    assert " invalid quick " in failed
    assert " 2 of 4 " in failed
    assert " jw4 is not counted Failed while measuring, after 9 of 20 queries." in failed
    assert links == [Path(run.report).as_uri() for run in listed(pages[20]).runs if run.report]
    assert len(links) == 19


FILTERS = (
    {"profile": "hardware"},
    {"node": "jw4"},
    {"verdict": "partial"},
    {"node": "gpu-001", "verdict": "invalid"},
    {"profile": "quick", "node": "gpu-004", "verdict": "partial"},
    {"profile": "hardware", "verdict": "partial"},
)


@pytest.mark.parametrize("width", [360, 1440])
def test_filters_show_what_the_list_shows(browser: Browser, pages: dict[int, Path], width: int) -> None:
    path = pages[300]
    every = listed(path)
    with opened(browser, path, width) as seen:
        for wanted in FILTERS:
            for name, value in wanted.items():
                seen.page.select_option(f"#{name}", label=value)
            found = listed(path, **wanted).runs
            assert shown(seen.page, ".runs") == [run.run_id for run in found], wanted
            assert counted(seen.page) == f"{len(found)} of 300 runs"
            lines = shown(seen.page, ".lines")
            assert ("node" not in wanted) or set(lines) <= {wanted["node"]}
            seen.page.get_by_role("button", name="Show all").click()
            assert len(shown(seen.page, ".runs")) == len(every.runs) == 300
        # By keyboard alone.
        seen.page.locator("#verdict").press("p")
        assert shown(seen.page, ".runs") == [run.run_id for run in listed(path, verdict="partial").runs]


def test_lines_are_drawn_with_the_nodes_own_values(browser: Browser, pages: dict[int, Path]) -> None:
    path = pages[20]
    history = {run.run_id: run for run in listed(path, profile="quick", node=stored.SLOWER).runs}
    with opened(browser, path) as seen:
        charts = seen.charts()
        drawn = list(zip(shown(seen.page, ".lines"), charts.values(), strict=True))
        said = seen.page.locator(".lines tr", has_text=stored.SLOWER).first.inner_text()
    # The kind that was measured last comes first.
    chart = next(each for node, each in drawn if node == stored.SLOWER)
    points = chart.points("line")
    # Not counted in: the run that goes on, those of other nodes, and the interrupted one.
    assert [place for place, _ in points] == pytest.approx(range(len(points)), abs=0.1)
    assert len(points) == sum(run.verdict == "valid" for run in history.values())
    (ring,) = [name for name in chart.names() if name.startswith("shift:")]
    shifted = ring.removeprefix("shift:")
    level = [value for _, value in points]
    assert level[-1] == pytest.approx(0.9 * level[0], rel=0.03)
    at = next(number for number, value in enumerate(level) if value < 0.95 * level[0])
    assert shifted == sorted(run.run_id for run in history.values() if run.verdict == "valid")[at]
    assert chart.points(ring)[0] == pytest.approx(points[at], abs=0.02)
    assert "QPS \N{MINUS SIGN}1" in said
    assert "worse" in said


@pytest.mark.parametrize("count", [20, 300])
def test_it_prints_legibly_what_was_chosen(browser: Browser, pages: dict[int, Path], count: int) -> None:
    with opened(browser, pages[count], scheme="dark") as seen:
        whole = PdfReader(io.BytesIO(seen.page.pdf(format="A4")))
        seen.page.select_option("#profile", label="hardware")
        part = PdfReader(io.BytesIO(seen.page.pdf(format="A4")))
    # A font's ligatures are letters again.
    texts = [
        " ".join(unicodedata.normalize("NFKC", " ".join(page.extract_text() for page in pdf.pages)).split())
        for pdf in (whole, part)
    ]
    runs = listed(pages[count])
    assert len(whole.pages) < 60
    for run in runs.runs:
        assert run.created_at[:10] in texts[0]
    assert "Show all" not in texts[0]
    assert "Profile" not in texts[0]
    assert "Profile" in texts[1], "what was chosen is printed too"
    assert f"{len(listed(pages[count], profile='hardware').runs)} of {count} runs" in texts[1]
