"""What is said of Ansible's own work on a node."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "shared"))

from module_result import why_failed

NO_JSON = "Module result deserialization failed: No start of json char found"


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ({"msg": "The disk is full."}, "The disk is full."),
        ({}, "the module failed without a message"),
        (
            {"msg": NO_JSON, "module_stdout": "", "module_stderr": "No module named\n 'encodings'"},
            "/opt/python3 on the node cannot run Ansible's modules: No module named 'encodings'.",
        ),
        (
            {"msg": NO_JSON, "module_stdout": "\n"},
            "/opt/python3 on the node cannot run Ansible's modules: it printed nothing.",
        ),
    ],
)
def test_a_python_that_runs_no_module_is_named_with_its_words(done: dict[str, Any], said: str) -> None:
    assert why_failed(done, "/opt/python3") == said
