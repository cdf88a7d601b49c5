"""What imports what: one way, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted((CHECKOUT / "benchmark").rglob("*.py")):
        words = path.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs, also within functions; what only a type checker reads is no import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _statements(child)


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    found = set()
    for statement in _statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
            found |= {name if name in modules else statement.module for name in names}
        elif isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
    return found & set(modules)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports of the others."""
    modules = _modules()
    return {name: _imports(path, modules) - {name} for name, path in modules.items()}


def _circle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle; none: an empty list."""
    left = {name: set(others) for name, others in imports.items()}
    while leaves := [name for name, others in left.items() if not others & set(left)]:
        for name in leaves:
            del left[name]
    path = sorted(left)[:1]
    while path:
        following = min(left[path[-1]] & set(left))
        if following in path:
            return path[path.index(following) :]
        path.append(following)
    return path


def test_there_is_no_circle_of_imports(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 150
    assert _circle(imports) == []
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


@pytest.mark.parametrize(("part", "never"), [("node", "cluster"), ("cluster", "node")])
def test_the_two_halves_do_not_import_each_other(imports: dict[str, set[str]], part: str, never: str) -> None:
    inside = {name: others for name, others in imports.items() if name.startswith(f"benchmark.{part}.")}
    assert inside
    assert {name: bad for name, others in inside.items() if (bad := _under(f"benchmark.{never}", others))} == {}


def test_commands_are_imported_by_the_command_line_alone(imports: dict[str, set[str]]) -> None:
    outside = {name: others for name, others in imports.items() if not name.startswith("benchmark.commands")}
    assert {name: bad for name, others in outside.items() if (bad := _under("benchmark.commands", others))} == {}


def _under(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


DECLARED = (
    # Its declaration, its role, its step in the playbooks; what is made of the settings.
    *("benchmark/provisioned/vllm.py", "playbooks/benchmark.yml", "playbooks/provision.yml"),
    *("roles/vllm/README.md", "roles/vllm/defaults/main.yml", "roles/vllm/meta/argument_specs.yml"),
    *("roles/vllm/tasks/main.yml", "roles/benchmark/README.md"),
    *("roles/benchmark/defaults/main.yml", "roles/benchmark/meta/argument_specs.yml"),
    *("roles/preflight/README.md", "roles/preflight/meta/argument_specs.yml"),
    *("roles/python_env/README.md", "roles/python_env/meta/argument_specs.yml"),
    *("roles/hf_cache/README.md", "roles/hf_cache/meta/argument_specs.yml"),
    # What servers are known to say and take, whoever started them.
    *("benchmark/node/engines/endpoint.py", "benchmark/node/measuring.py", "benchmark/verdict.py"),
    *(f"benchmark/node/serving/{name}.py" for name in ("cache_counters", "models", "request", "server_facts", "words")),
)


def test_a_provisioned_engine_is_named_where_it_is_declared() -> None:
    rooms = ("benchmark", "plugins", "roles", "playbooks", "tools")
    files = [path for room in rooms for path in (CHECKOUT / room).rglob("*") if path.suffix not in ("", ".pyc")]
    assert len(files) > 300
    named = {str(path.relative_to(CHECKOUT)) for path in files if b"vllm" in path.read_bytes().lower()}
    assert named == set(DECLARED)


def test_names_of_tests_are_short_enough_to_grep() -> None:
    for path in sorted((CHECKOUT / "tests").rglob("*.py")):
        names = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        tests = [name for name in names if name.startswith("test_")]
        assert [name for name in tests if len(name) > 60] == [], path
        assert len(tests) == len(set(tests)), f"{path} has one of these twice: {tests}"
