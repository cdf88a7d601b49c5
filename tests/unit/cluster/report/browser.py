"""A page in headless Chromium: what it says, what it asks for, where its charts' points lie."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FloatRect, Page, sync_playwright

MAX_PICTURE = 200_000
_POINT = re.compile(r"[ML] (-?[0-9.]+) (-?[0-9.]+)")

Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; Playwright's own would have to be downloaded."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("There is no Chromium: apt-get install --no-install-recommends chromium.")
    with sync_playwright() as playwright:
        # As root, which tests in a container are, Chromium's sandbox refuses to start.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """An open page, and what happened since it was opened."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def serious(self) -> list[str]:
        """Return the accessibility faults that matter, with everything unfolded.

        axe takes a long time for each text, since it looks for what lies behind. Of a chart, whose shapes are one
        image, eight texts are looked at; elsewhere three of those that have colours, size and backgrounds alike.
        """
        self.page.evaluate(
            """const remove = each => each.remove();
            document.querySelectorAll('details').forEach(each => each.open = true);
            document.querySelectorAll('tbody tr:nth-child(n+4)').forEach(remove);
            document.querySelectorAll('svg.chart').forEach(chart => {
                chart.querySelectorAll('path, use, defs').forEach(remove);
                [...chart.querySelectorAll('text')].slice(8).forEach(remove);
                [...chart.querySelectorAll('g')].reverse().forEach(g => { if (!g.querySelector('text')) g.remove(); });
            });
            const behind = new Map([[null, '']]), seen = {};
            const background = each => {
                if (!behind.has(each)) {
                    const style = getComputedStyle(each);
                    const own = `${style.backgroundColor} ${style.backgroundImage} ${style.opacity} ${style.filter};`;
                    behind.set(each, background(each.parentElement) + own);
                }
                return behind.get(each);
            };
            // Not those that have to have a name.
            document.querySelectorAll('body :not(svg *, a, button, label, option, summary)').forEach(each => {
                if (each.children.length || !each.textContent.trim()) return;
                const style = getComputedStyle(each), hidden = document.createElement('span');
                const alike = [style.color, style.font, style.textShadow, background(each)].join();
                seen[alike] = (seen[alike] || 0) + 1;
                if (seen[alike] <= 3) return;
                hidden.style.visibility = 'hidden';
                hidden.append(...each.childNodes);
                each.append(hidden);
            })"""
        )
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return max(0, wider)

    def picture(self, selector: str) -> bytes:
        """Return a part of the page as PNG, with some room around it."""
        box = self.page.locator(selector).first.bounding_box()
        assert box is not None
        room = 16
        clip: FloatRect = {
            "x": max(0.0, box["x"] - room),
            "y": max(0.0, box["y"] - room),
            "width": box["width"] + 2 * room,
            "height": box["height"] + 2 * room,
        }
        return self.page.screenshot(full_page=True, clip=clip)

    def charts(self) -> dict[str, Chart]:
        """Return the page's charts by name."""
        reported: list[dict[str, Any]] = self.page.evaluate(
            """[...document.querySelectorAll('svg.chart')].map(svg => ({
                name: svg.dataset.chart, label: svg.getAttribute('aria-label'), axes: JSON.parse(svg.dataset.axes),
                series: [...svg.querySelectorAll('[data-series]')].map(g => ({
                    name: g.dataset.series,
                    paths: [...g.querySelectorAll('path:not(defs *)')].map(p => p.getAttribute('d')),
                    uses: [...g.querySelectorAll('use')].map(u => [u.x.baseVal.value, u.y.baseVal.value]),
                    fill: g.querySelector('use')?.style.fill}))}))"""
        )
        return {one["name"]: Chart(one["name"], one["axes"], one["series"]) for one in reported}


@dataclass
class Chart:
    """A chart as it is drawn: its axes, and the points of its series in pixels."""

    name: str
    axes: list[dict[str, Any]]
    series: list[dict[str, Any]]

    def names(self) -> list[str]:
        """Return the names of what is drawn."""
        return [one["name"] for one in self.series]

    def points(self, name: str, row: int = 0) -> list[tuple[float, float]]:
        """Return the values that are drawn as `name`, turned back from pixels by the axes in that row."""
        (one,) = [one for one in self.series if one["name"] == name]
        numbers = [tuple(map(float, pair)) for path in one["paths"] for pair in _POINT.findall(path)]
        return [self._value(x, y, row) for x, y in (numbers or one["uses"])]

    def fill(self, name: str) -> str:
        """Return the colour within the dot that is drawn as `name`, as the style sheet knows it."""
        (fill,) = [one["fill"] for one in self.series if one["name"] == name]
        return str(fill)

    def resolution(self, row: int = 0) -> tuple[float, float]:
        """Return what a fiftieth of a pixel is worth: points are rounded to a hundredth."""
        axes = self.axes[row]
        return (
            abs(axes["x"][1] - axes["x"][0]) / (axes["right"] - axes["left"]) / 50,
            abs(axes["y"][1] - axes["y"][0]) / (axes["bottom"] - axes["top"]) / 50,
        )

    def _value(self, x: float, y: float, row: int) -> tuple[float, float]:
        axes = self.axes[row]
        across = (x - axes["left"]) / (axes["right"] - axes["left"])
        up = (axes["bottom"] - y) / (axes["bottom"] - axes["top"])
        (x0, x1), (y0, y1) = axes["x"], axes["y"]
        value = x0 * (x1 / x0) ** across if axes["scale"] == "log" else x0 + across * (x1 - x0)
        return value, y0 + up * (y1 - y0)


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1440, scheme: Scheme = "light") -> Iterator[Seen]:
    """Open a file as a reader would, and listen.

    In the one page there is: for a new one Chromium makes a window, which takes longer than to open a report in it.
    """
    page = browser.contexts[0].pages[0] if browser.contexts else browser.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    seen = Seen(page)
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: seen.said.append(message.text),
        "pageerror": lambda error: seen.said.append(str(error)),
        "request": lambda request: seen.asked.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.goto(path.as_uri())
        yield seen
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)


def keep_picture(pytestconfig: pytest.Config, file: str, picture: bytes) -> None:
    """Hold a picture against the size that a repository can bear; write it where it is wanted (`--pictures DIR`)."""
    assert 1000 < len(picture) < MAX_PICTURE, file
    if target := pytestconfig.getoption("--pictures"):
        (Path(target) / file).write_bytes(picture)
