"""What may be secret, on the controller: checked with the settings, and kept out of what a run writes down."""

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
    assert lines[1].startswith("benchmark_environment.A B is not the name of an environment variable")
    assert lines[1].endswith("[n1, n2]")
    assert "hidden" not in str(reported.value)
    with pytest.raises(NodeFailure, match=r"benchmark_environment\.A B"):
        resolve_play(play(benchmark_environment={"A B": "hidden"}), Loader())


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"benchmark_notify": "/no/such/hidden"}, "benchmark_notify is neither a URL"),
        ({"benchmark_notify": "http://[hidden"}, "benchmark_notify is not the address of a webhook"),
    ],
)
def test_whom_nobody_can_notify_is_refused(
    variables: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    with pytest.raises(NodeFailure) as reported:
        resolve_play(play(**variables), Loader())
    assert said in str(reported.value)
    assert "hidden" not in str(reported.value)


def test_nodes_cannot_notify_different_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("play_settings.load_extra_vars", lambda loader: {})
    given = play(benchmark_notify="cat")
    given["hostvars"]["n2"]["benchmark_notify"] = "true"
    with pytest.raises(NodeFailure, match="benchmark_notify belongs to the whole run and differs between nodes"):
        resolve_play(given, Loader())


def test_the_first_line_of_what_starts_a_run_holds_them() -> None:
    assert secrets_of({}).line() == ""
    assert secrets_of({"benchmark_environment": {"A": "ü"}, "other": 1}).line() == (
        '{"benchmark_environment": {"A": "\\u00fc"}}'
    )
