"""The roles say what `benchmark.settings` says, and ask for no more than they need."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.provisioned import PROVISIONING_ROLES
from benchmark.secret_settings import NAMES
from benchmark.settings import Settings
from benchmark.variables import VARIABLES
from tools import generate

ROLES = sorted(generate.ROLES.iterdir())
PROVISION = yaml.safe_load((generate.CHECKOUT / "playbooks" / "provision.yml").read_text())[-1]["roles"]


def load(path: Path) -> Any:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def defaults(role: Path) -> dict[str, Any]:
    found: dict[str, Any] = load(role / "defaults" / "main.yml")
    return found


def specs(role: Path) -> generate.Options:
    return generate.options_of((role / "meta" / "argument_specs.yml").read_text())


def test_a_role_by_itself_does_what_the_whole_job_does() -> None:
    """provision.yml takes a role's defaults where benchmark.yml takes those of Settings: read, they are equal."""
    stated: dict[str, Any] = {}
    for name in [one["role"] for one in PROVISION] + ["benchmark"]:
        stated |= defaults(generate.ROLES / name)
    beside = {variable.name for variable in VARIABLES}
    assert beside <= set(stated)
    settings = {name: value for name, value in stated.items() if name not in beside}
    assert Settings.model_validate(settings) == Settings()
    assert set(settings) == set(Settings.model_fields)
    assert settings == {name: field.default for name, field in Settings.model_fields.items()}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_has_the_same_defaults_in_both_of_its_files(role: Path) -> None:
    for name, value in defaults(role).items():
        if name not in generate.COMPUTED:
            assert specs(role)[name].get("default") == value, name


def test_whatever_is_provided_has_its_step_in_both_playbooks() -> None:
    whole = (generate.CHECKOUT / "playbooks" / "benchmark.yml").read_text()
    for role in PROVISIONING_ROLES:
        assert role in [one["role"] for one in PROVISION]
        assert f"            name: {role}\n" in whole
        assert f"register: {role}_made" in (generate.ROLES / role / "tasks" / "main.yml").read_text()


def test_what_may_be_secret_is_in_no_output_of_ansible() -> None:
    options: generate.Options = {}
    for role in ROLES:
        options |= specs(role)
    assert all(options[name].get("no_log") for name in ("hf_cache_token", *NAMES))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_nothing_in_the_specs_is_a_template(role: Path) -> None:
    """Ansible gives the specs to a task as arguments, templated: with -vvv it would print what comes of it."""
    assert "{{" not in (role / "meta" / "argument_specs.yml").read_text()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_has_a_comment(role: Path) -> None:
    if defaults(role):
        for before, line in pairwise((role / "defaults" / "main.yml").read_text().splitlines()):
            if line[:1].isalpha():
                assert before.startswith("#"), line


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_role_asks_for_more_rights(role: Path) -> None:
    assert not [path for path in role.rglob("*.yml") if "become" in path.read_text()]
