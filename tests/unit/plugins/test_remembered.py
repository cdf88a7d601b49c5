"""Variables that are made once, however often one task asks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins" / "shared"))

from remembered import remembering


class Templates(Mapping[str, Any]):
    """Values that are made for whoever asks, and counted."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values_, self.made = values, Counter[str]()

    def __getitem__(self, name: str) -> Any:
        self.made[name] += 1
        return self.values_[name]

    def __contains__(self, name: object) -> bool:
        return name in self.values_

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def raw_get(self, node: str) -> dict[str, str]:
        self.made[f"raw {node}"] += 1
        return {"address": "{{ here }}"}


def test_each_node_and_each_of_its_variables_is_made_once() -> None:
    node = Templates({"address": "127.0.0.2", "nothing": None})
    known = Templates({"n1": node, "n2": Templates({})})
    variables = remembering({"groups": {}, "hostvars": known})
    for _ in range(3):
        assert variables["hostvars"]["n1"]["address"] == "127.0.0.2"
        assert variables["hostvars"]["n1"].get("nothing", "else") is None
        assert variables["hostvars"].raw_get("n1") == {"address": "{{ here }}"}
    assert known.made == {"n1": 1, "raw n1": 1}
    assert node.made == {"address": 1, "nothing": 1}
    assert list(variables["hostvars"]["n1"]) == ["address", "nothing"], "to look which there are makes none"
    assert ("n2" in variables["hostvars"], "n3" in variables["hostvars"]) == (True, False)
    assert known.made["n2"] == 0


def test_what_cannot_be_made_is_tried_again() -> None:
    known = Templates({})
    variables = remembering({"hostvars": Templates({"n1": known})})["hostvars"]["n1"]
    for _ in range(2):
        with pytest.raises(KeyError):
            variables["later"]
    known.values_["later"] = 1
    assert variables["later"] == 1


def test_a_task_without_nodes_has_the_variables_that_it_has() -> None:
    given: dict[str, Any] = {"groups": {}}
    assert remembering(given) is given
