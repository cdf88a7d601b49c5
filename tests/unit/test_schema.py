"""The schemas under docs/ are current, and real files of a run keep to them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmark.cli import main
from benchmark.commands.schema import DIRECTORY, SCHEMAS, schemas


def schema(name: str) -> Any:
    return json.loads((DIRECTORY / f"{name}.schema.json").read_text())


def test_docs_schema_is_current() -> None:
    kept = {path.name: path.read_text() for path in DIRECTORY.glob("*.json")}
    assert kept == schemas(), "a record has changed: run python3 -m benchmark schema, and commit docs/schema"


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_a_real_run_keeps_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [f"benchmark_results_dir={tmp_path}", "benchmark_profile=self-test", "benchmark_device=cpu"]
    sets += ["benchmark_shared_machine=true"]
    monkeypatch.setenv("NODE_NAME", "jw2")
    assert main(["run", *(word for one in sets for word in ("--set", one))]) == 0
    run_dir = (tmp_path / "latest").resolve()
    assert main(["aggregate", str(run_dir)]) == 0
    node = run_dir / "nodes" / "jw2"
    (result,) = node.glob("mlperf_datacenter_jw2_*.json")
    files = {
        "run": run_dir / "run.json",
        "aggregated_datacenter_results": run_dir / "aggregated_datacenter_results.json",
        "node_result": result,
    }
    for name, path in files.items():
        jsonschema.validate(json.loads(path.read_text()), schema(name))
    for line in (node / "samples.jsonl").read_text().splitlines():
        jsonschema.validate(json.loads(line), schema("sample"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(result.read_text()), "status": "splendid"}, schema("node_result"))


def test_the_command_writes_them_elsewhere(tmp_path: Path) -> None:
    assert main(["schema", "--out", str(tmp_path / "x")]) == 0
    assert {path.name for path in (tmp_path / "x").iterdir()} == set(schemas())
