"""The dashboards in docs/grafana ask for what our Prometheus file has, and for nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmark.cluster.aggregate import gather
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from tests.unit.building import add_probed, hardware, make_run, probes
from tests.unit.cluster.report import runs

DASHBOARDS = sorted((Path(__file__).parents[4] / "docs" / "grafana").glob("*.json"))
# A selector: the metric, and what its braces hold.
SELECTOR = re.compile(r"(llm_benchmark_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Return metric -> label -> its values, of runs with all that a dashboard shows: a slow node, energy, probes."""
    queried = runs.cluster(tmp_path_factory.mktemp("queried"), 8, every_ms=2000)
    probed = make_run(tmp_path_factory.mktemp("probed"), {"gpu-100": hardware()})
    add_probed(probed, "gpu-100", hardware(), probes(2))
    found: dict[str, dict[str, set[str]]] = {}
    for gathered in map(gather, (queried, probed)):
        for family in text_string_to_metric_families("".join(prometheus_lines([whole(gathered.run, gathered.result)]))):
            for one in family.samples:
                for name, value in one.labels.items():
                    found.setdefault(one.name, {}).setdefault(name, set()).add(value)
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each query, and the text of its legend."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield metric, f"{{{{{label}}}}}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_metric_and_label_is_ours(path: Path, labels: dict[str, dict[str, set[str]]]) -> None:
    dashboard = json.loads(path.read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    asked = 0
    for expression, legend in queries(dashboard):
        for metric, matchers in SELECTOR.findall(expression):
            asked += 1
            assert metric in labels, expression
            for label, operator, value in MATCHER.findall(matchers):
                assert label in labels[metric], expression
                if operator == "=":
                    assert value in labels[metric][label], expression
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= set(labels[metric]), expression
        assert set(re.findall(r"\$(\w+)", expression)) <= variables
    assert asked > 10


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_a_place_of_their_own(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    every = list(panels(dashboard))
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in every:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations([panel["gridPos"] for panel in every], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)
