"""Templates are compiled once; what is kept is never what other code, or another template, was compiled to."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from benchmark import compiled_templates
from benchmark.compiled_templates import CompiledTemplates


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "greeting.j2").write_text('{{ "Hello" | mark }} {{ name }}')
    return tmp_path


def rendered(templates: Path, environment: str = "text", mark: Callable[[str], str] = str.upper) -> str:
    """Return what a process of its own would make of the template."""
    jinja = Environment(
        loader=FileSystemLoader(templates),
        bytecode_cache=CompiledTemplates(templates, environment),
        autoescape=environment == "page",
    )
    jinja.filters["mark"] = mark
    return jinja.get_template("greeting.j2").render(name="<you>")


def kept(templates: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in templates.glob("__pycache__/*.jinja"))


def test_a_second_process_compiles_nothing(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rendered(templates) == "HELLO <you>"

    def compiles(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(Environment, "_generate", compiles)
    assert rendered(templates) == "HELLO <you>"
    with pytest.raises(AssertionError, match="compiled again"):
        rendered(templates, "page")


def test_environments_do_not_share_what_they_compile(templates: Path) -> None:
    assert (rendered(templates), rendered(templates, "page")) == ("HELLO <you>", "HELLO &lt;you&gt;")
    assert kept(templates) == ["page", "text"]


def test_a_changed_template_or_filter_is_compiled_anew(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(templates, "page")
    rendered(templates)
    monkeypatch.setattr(compiled_templates, "_code", lambda: "changed")
    assert rendered(templates, mark=str.lower) == "hello <you>"
    assert kept(templates) == ["page", "text"], "what the other code made is gone"
    (templates / "greeting.j2").write_text("Bye {{ name }}")
    assert rendered(templates, mark=str.lower) == "Bye <you>"


def test_our_code_is_known_by_when_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_templates, "PACKAGE", tmp_path)
    asked = compiled_templates._code.__wrapped__
    (tmp_path / "text.py").write_text("WIDTH = 80\n")
    before = asked()
    assert asked() == before
    (tmp_path / "text.py").write_text("WIDTH = 100\n")
    assert asked() != before


@pytest.mark.parametrize("kind", ["read-only", "unasked"])
def test_where_nothing_can_be_kept_it_is_compiled(templates: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "read-only":
        (templates / "__pycache__").touch()  # a file there: as root nothing is read-only
    else:
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert rendered(templates) == rendered(templates) == "HELLO <you>"
    assert kept(templates) == []
