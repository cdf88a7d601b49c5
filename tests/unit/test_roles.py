"""The inventory's names and defaults are stated in three places for three readers: they must say the same."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.secret_settings import NAMES
from benchmark.settings import Settings
from tools import role_docs

ROLES = sorted(role_docs.ROLES.iterdir())
# Its default is the controller's environment.
SECRET = "hf_cache_token"
# Variables that are no settings of a run: secrets, and which run is resumed.
NO_SETTINGS = (SECRET, *NAMES, "benchmark_resume")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_has_the_argument_specs_table(role: Path) -> None:
    assert role_docs.current(role) == (role / "README.md").read_text()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_states_its_defaults_as_its_specs_do(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}
    for name, value in load(role / "defaults" / "main.yml").items():
        if name != SECRET:
            assert options[name].get("default") == value, name


def test_settings_and_roles_agree() -> None:
    stated: dict[str, Any] = {}
    for role in ROLES:
        for name, value in load(role / "defaults" / "main.yml").items():
            if not name.startswith(("__", "cluster_summary_")) and name not in NO_SETTINGS:
                stated[name] = value
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    assert stated == settings


def test_what_may_be_secret_is_in_no_output_of_ansible() -> None:
    options: dict[str, Any] = {}
    for role in ROLES:
        options |= load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}
    assert all(options[name].get("no_log") for name in (SECRET, *NAMES))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_has_a_comment(role: Path) -> None:
    lines = (role / "defaults" / "main.yml").read_text().splitlines()
    for before, line in pairwise(lines):
        if line[:1].isalpha():
            assert before.startswith("#") or "#" in line, line


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_role_asks_for_more_rights(role: Path) -> None:
    assert not [path for path in role.rglob("*.yml") if "become" in path.read_text()]
