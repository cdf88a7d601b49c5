"""Probes are what a node says: whatever their names, units and values are, they break and steer nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.records.probes import MOST, HardwareProbes
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import probes
from tests.unit.probed_runs import store

NAME = '\x1b[31m"><script>x</script>|{{ 7 * 7 }}\n`=1+1'


def hostile(value: float) -> HardwareProbes:
    """Return probes with a name, a unit and values that no hardware has."""
    each = {NAME: {"value": value, "unit": f"{NAME[:38]}/s"}, "x" * 100: {"value": -value, "unit": "y" * 38 + "/s"}}
    odd = {"device_memory_read": {"value": value, "unit": f"{NAME[:38]}/s"}, "a_0_to_1": {"value": 0, "unit": "us"}}
    return HardwareProbes.model_validate(
        {
            "seconds": 1e300,
            "node": each,
            "gpus": [
                {"index": 2**62, "name": "H", "figures": {**each, **odd}},
                {"index": 0, "name": "H", "figures": each},
            ],
            "between_gpus": {"b_0_to_1": each[NAME], "b_1_to_0": {"value": 1e-300, "unit": "us"}},
            "notes": (NAME,),
        }
    )


@pytest.mark.parametrize("value", [MOST, 1e-300])
def test_they_break_and_steer_nothing(tmp_path: Path, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 5):
        last = store(tmp_path, day, {"gpu1": hostile(value if day > 3 else 1.0), "gpu2": probes(2)})
    assert main(["baseline", "set", str(tmp_path / "20261101T100000Z-0123abcd")]) == 0
    assert main(["aggregate", str(last), "--junit", str(tmp_path / "j.xml"), "--prometheus-dir", str(tmp_path)]) == 1
    assert main(["compare", str(tmp_path / "20261101T100000Z-0123abcd"), str(last)]) in (0, 1, 2)
    assert main(["history", "--results-dir", str(tmp_path)]) == 0
    for form in ("csv", "markdown", "prometheus"):
        assert main(["export", str(last), "--format", form, "-o", str(tmp_path / form)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 counted" in printed
    texts = [printed, *(path.read_text() for path in last.glob("nodes/*/*.txt"))]
    for text in texts:
        assert all(character.isprintable() or character == "\n" for character in text)
    assert max(columns(line) for line in (last / "benchmark_summary.txt").read_text().splitlines()) <= WIDTH
    page = (last / "report.html").read_text()
    assert "<script" not in page
    assert "{{ 7 * 7 }}" in page
    assert "gpu2" in printed
