"""What is imported once and stays."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.importing import BLAS_THREADS, importing, missing_package, not_loading
from tests.unit.cluster.packages.test_existing import install

# Threads of a process that has loaded a command, and whether what it starts would know.
THREADS = f"""
import os, pathlib
from benchmark import cli
cli.main(["aggregate", "/nowhere"])
print(len(list(pathlib.Path("/proc/self/task").iterdir())), "{BLAS_THREADS}" in os.environ)
"""


def test_the_collector_is_still_while_imports_go_on() -> None:
    frozen = gc.get_freeze_count()
    brought: list[list[int]] = []

    def bring() -> None:
        with importing():
            assert not gc.isenabled()
            brought.extend([number] for number in range(1000))
            raise ImportError

    with pytest.raises(ImportError):
        bring()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(brought)
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled(), "as it was"
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there are no further threads")
@pytest.mark.parametrize(("given", "reported"), [({}, "1 False"), ({BLAS_THREADS: "2"}, "2 True")])
def test_numpy_starts_no_threads_for_us(given: dict[str, str], reported: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=inherited | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == reported


# What a line can be set to by `set`, and what `help` says of it, of classes that are loaded within.
DRAWN = """
from contextlib import nullcontext
from benchmark.importing import undocumented
with {within}:
    from matplotlib.lines import Line2D
line = Line2D([0, 1], [0, 1])
line.set(linewidth=3, c="red")
class Own(Line2D):
    pass
print(line.get_linewidth(), line.get_color(), "drawstyle" in Line2D.set.__doc__, "drawstyle" in Own.set.__doc__)
"""


@pytest.mark.parametrize(("within", "written"), [("undocumented()", False), ("nullcontext()", True)])
def test_matplotlib_is_loaded_without_its_manual(within: str, written: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRAWN.format(within=within)], capture_output=True, text=True, check=True
    )
    # Whoever derives a class afterwards has it written.
    assert done.stdout.split() == ["3.0", "red", str(written), "True"]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("ansible_runner", "The package ansible-runner is missing: install requirements.txt (on the controller)"),
        ("torch.nn", "The package torch is missing: install requirements-node.txt (on a node) into"),
        ("yaml", "requirements.txt (on the controller) or requirements-node.txt (on a node)"),
        ("mlperf_loadgen", "The package mlcommons-loadgen is missing: install requirements-node.txt (on a node)"),
        ("flash_attn", "The package flash-attn is missing: install it (pip install flash-attn) into this Python."),
    ],
)
def test_a_missing_package_is_sought_where_it_is_pinned(
    module: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert said in missing_package(module)


@pytest.mark.parametrize("module", ["gliff_outer", "gliff_outer.inner"])
def test_a_package_that_is_half_there_is_no_missing_one(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip would say that it is there already."""
    install(tmp_path, "gliff_outer", "2.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert missing_package(module) == (
        f"The package gliff-outer is incomplete in {sys.prefix}: its metadata say version 2.1, but there is no module "
        f"{module}. Install it again (pip install --force-reinstall gliff-outer)."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open"),
        ("import gliff_inner", "ImportError: its library is another's"),
        (
            "try:\n  import gliff_inner\nexcept ImportError as e:\n  raise ModuleNotFoundError('see above') from e",
            "its",
        ),
    ],
)
def test_a_package_that_does_not_load_is_named(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gliff_outer.py").write_text(text + "\n")
    (tmp_path / "gliff_inner.py").write_text('raise ImportError("its library is another\'s")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((OSError, ImportError)) as caught:
        importlib.import_module("gliff_outer")
    name = "gliff_outer" if "OSError" in text else "gliff_inner"
    said = not_loading(caught.value)
    assert said is not None
    assert said.startswith(f"The package {name} in {tmp_path} does not load: ")
    assert words in said


def test_what_is_no_fault_of_an_import_is_none() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("gliff_that_is_nowhere")
    assert not_loading(caught.value) is None
    assert not_loading(ValueError("no traceback")) is None


def test_a_command_whose_package_does_not_load_says_so(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libopenblas.so.0: cannot open shared object file')\n")
    command = [sys.executable, "-m", "benchmark", "run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"The package numpy in {tmp_path} does not load: ImportError: libopenblas.so.0: cannot open")


def test_the_place_of_a_package_is_where_its_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gliff_whole" / "part" / "part").mkdir(parents=True)
    for directory in ("", "part", "part/part"):
        (tmp_path / "gliff_whole" / directory / "__init__.py").touch()
    (tmp_path / "gliff_whole" / "part" / "broken.py").write_text("raise OSError('no library')\n")
    (tmp_path / "gliff_whole" / "part" / "part" / "__init__.py").write_text("raise OSError('no library')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("gliff_whole.part.broken", "gliff_whole.part.part"):
        with pytest.raises(OSError, match="no library") as caught:
            importlib.import_module(module)
        assert str(not_loading(caught.value)).startswith(f"The package gliff_whole in {tmp_path} does not load: OSErr")


def test_a_package_of_transformers_is_no_fault_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "accelerate.py").write_text("raise RuntimeError('built for another torch')\n")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    text = (
        "from pathlib import Path; from benchmark.node.model.architecture import read_config; read_config(Path('{}'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", text.replace("{}", str(tmp_path))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert f"The package accelerate in {tmp_path} does not load: RuntimeError: built for another torch" in last
