"""What is made from elsewhere is current, and says what it is made from."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.settings import RUN_WIDE, Settings
from benchmark.variables import VARIABLES
from tools import generate

PAGE = generate.CHECKOUT / "docs" / "settings.md"


def test_all_files_are_current() -> None:
    old = [str(path) for path, text in generate.made().items() if not path.exists() or path.read_text() != text]
    assert not old, f"run {generate.COMMAND}"


def test_the_check_names_the_file_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {**generate.made(), PAGE: "something else"}
    monkeypatch.setattr(generate, "made", lambda: files)
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 1
    assert capsys.readouterr().out == "docs/settings.md is old: make generate writes it anew\n"
    assert PAGE.read_text() != "something else"


def test_every_setting_is_on_the_page_once() -> None:
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `") and "` | " in line]
    names = [*Settings.model_fields, *(variable.name for variable in VARIABLES)]
    assert sorted(name for name in rows if name in names) == sorted(names)
    assert set(generate.PARTS) <= set(names)


def test_the_page_names_what_belongs_to_the_whole_run() -> None:
    text = " ".join(PAGE.read_text().split())
    assert ", ".join(f"`{name}`" for name in (*RUN_WIDE, "benchmark_resume")) in text


@pytest.mark.parametrize(
    "value", ["", "off", "6.1", "~/x", "100%", "a: b", 'said "so"', "null", "#", "a's", "- a", 1, 0.5, True, [], {}]
)
def test_a_value_is_read_back_as_it_was(value: object) -> None:
    line = f"name: {generate._yaml(value)}"
    assert yaml.safe_load(line) == {"name": value}


def test_it_runs_as_the_makefile_runs_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.generate", "--check"], cwd=generate.CHECKOUT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
