"""The nodes as CSV."""

import csv
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import gather
from benchmark.cluster.render.node_table import HEADS, cell, render_node_table
from benchmark.files import write_record
from benchmark.records import Failure
from tests.unit.building import RUN_ID, add_node, asked, make_run


def table(run_dir: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_node_table(gather(run_dir)))))


def test_a_line_per_node_with_every_figure(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1700.0, 1800.0, 1900.0])
    reported = Failure(node="jw3", stage="preflight", reason='=HYPERLINK("http://x")\nand more')
    write_record(tmp_path / "nodes" / "jw3" / "failure.json", reported)
    fine, failed = table(tmp_path)
    assert tuple(fine) == HEADS
    assert (fine["run_id"], fine["node"], fine["counted"], fine["valid"]) == (RUN_ID, "jw2", "true", "true")
    (measured,) = [row.metrics for row in gather(tmp_path).result.nodes if row.metrics]
    assert float(fine["qps"]) == measured.qps
    assert measured.latency_ms is not None
    assert float(fine["latency_ms_p99"]) == measured.latency_ms.p99
    assert fine["joules"] == ""  # no GPU told it: undefined, not zero
    assert (failed["status"], failed["counted"], failed["qps"]) == ("failed", "false", "")
    assert failed["reason"] == 'preflight: =HYPERLINK("http://x") and more'


@given(st.text(max_size=20))
def test_no_text_becomes_a_formula(text: str) -> None:
    shown = cell(text)
    assert isinstance(shown, str)
    assert not shown.startswith(("=", "+", "-", "@"))
    assert "\n" not in shown


def test_numbers_stay_numbers() -> None:
    assert [cell(value) for value in (-0.5, 3, None, True)] == [-0.5, 3, None, "true"]
