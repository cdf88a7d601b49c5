"""The package's own wheel: when it is built anew."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmark.cluster.packages import own_wheel
from benchmark.cluster.packages.own_wheel import build_wheel

LONG_AGO = (1, 1)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one module, whose wheel is packed without a builder."""

    def build(source: Path, directory: Path) -> Path:
        built = directory / "package.whl"
        with ZipFile(built, "w") as archive:
            for path in sorted(source.rglob("*.py")):
                archive.writestr(str(path.relative_to(source)), path.read_bytes())
            archive.writestr("package.dist-info/METADATA", "")
        return built

    monkeypatch.setattr(own_wheel, "_build", build)
    for name in ("pyproject.toml", "README.md", "benchmark/inner/module.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, LONG_AGO)
    return tmp_path


def _modules(checkout: Path) -> list[str]:
    with ZipFile(build_wheel(checkout)) as archive:
        return sorted(name for name in archive.namelist() if name.endswith(".py"))


def test_compiled_sources_make_no_other_wheel(checkout: Path) -> None:
    wheel = build_wheel(checkout)
    os.utime(wheel, (2, 2))
    (checkout / "benchmark/inner/__pycache__").mkdir()
    (checkout / "benchmark/inner/__pycache__/module.pyc").touch()
    assert build_wheel(checkout).stat().st_mtime == 2


def test_a_source_file_that_changed_makes_another(checkout: Path) -> None:
    os.utime(build_wheel(checkout), (2, 2))
    os.utime(checkout / "benchmark/inner/module.py", (3, 3))
    assert build_wheel(checkout).stat().st_mtime != 2


def test_a_new_or_missing_file_makes_another(checkout: Path) -> None:
    assert _modules(checkout) == ["benchmark/inner/module.py"]
    more = checkout / "benchmark/inner/more.py"
    more.touch()
    os.utime(more, LONG_AGO)
    assert _modules(checkout) == ["benchmark/inner/module.py", "benchmark/inner/more.py"]
    more.unlink()
    assert _modules(checkout) == ["benchmark/inner/module.py"]
