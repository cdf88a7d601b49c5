"""What the callback benchmark_notify passes on where there is no verdict.json, or one that is not of this playbook."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.building import RUN_ID, asked, make_run


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "plugins" / "callback"))
    return importlib.import_module("benchmark_notify").CallbackModule()


def test_a_run_without_summary_is_broken_and_says_why(callback: Any, tmp_path: Path) -> None:
    callback._run_dir = make_run(tmp_path, {"jw2": asked()})
    # Of an earlier end of the same run.
    (tmp_path / "verdict.json").write_text('{"outcome": "valid"}')
    callback._failures.append("The disk is full.")
    told = json.loads(callback._verdict())
    assert (told["outcome"], told["run_id"], told["asked_nodes"]) == ("broken", RUN_ID, 1)
    assert told["reasons"] == ["The playbook ended before the summary was made.", "The disk is full."]
    callback._summarised = True
    assert json.loads(callback._verdict()) == {"outcome": "valid"}


def test_a_run_that_was_never_opened_is_refused(callback: Any) -> None:
    callback._failures.append("benchmark_modell is not a setting.")
    told = json.loads(callback._verdict())
    assert (told["outcome"], told["run_id"], told["run_dir"]) == ("refused", None, None)
    assert told["reasons"] == ["No run was opened.", "benchmark_modell is not a setting."]
