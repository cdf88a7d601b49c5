"""What may be secret, on the controller: checked with the settings, and kept out of what a run writes down."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from node_action import NodeFailure
from play_settings import resolve_play, secrets_of


class Loader:
    """What is asked for files of variables: there is none."""

    def load_from_file(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


def play(**variables: Any) -> dict[str, Any]:
    nodes = {name: {"benchmark_profile": "self-test", **variables} for name in ("n1", "n2")}
    return {"ansible_play_hosts_all": list(nodes), "hostvars": nodes}


def test_they_are_no_part_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    plain = resolve_play(play(), Loader()).resolved
    given = resolve_play(
        play(benchmark_environment={"A": "1"}, benchmark_endpoint_api_key="k", benchmark_endpoint_headers={"B": "2"}),
        Loader(),
    ).resolved
    assert {node: one.sha256() for node, one in given.items()} == {node: one.sha256() for node, one in plain.items()}


def test_faults_are_reported_beside_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    with pytest.raises(NodeFailure) as reported:
        resolve_play(play(benchmark_environment={"A B": "hidden"}, benchmark_target_qps=-1), Loader())
    lines = str(reported.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("benchmark_target_qps is -1")
    assert lines[1].startswith("benchmark_environment.A B is no name of an environment variable")
    assert lines[1].endswith("[n1, n2]")
    assert "hidden" not in str(reported.value)
    with pytest.raises(NodeFailure, match=r"benchmark_environment\.A B"):
        resolve_play(play(benchmark_environment={"A B": "hidden"}), Loader())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("benchmark_model=org/name benchmark_target_qps=2", True),
        ("@secrets.yml", True),
        ("benchmark_endpoint_api_key=hidden", False),
        ("benchmark_model=org/name benchmark_environment={}", False),
        ('benchmark_endpoint_headers=\'{"X": "a b=c"}\'', False),
        ('{"benchmark_endpoint_api_key": "hidden="}', False),
        ("benchmark_model", False),
    ],
)
def test_a_command_line_is_kept_without_them(given: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "plugins" / "action"))
    assert importlib.import_module("benchmark_open")._harmless(given) is kept


def test_the_first_line_of_what_starts_a_run_holds_them() -> None:
    assert secrets_of({}).line() == ""
    assert secrets_of({"benchmark_environment": {"A": "ü"}, "other": 1}).line() == (
        '{"benchmark_environment": {"A": "\\u00fc"}}'
    )
