"""Import what stays, in less time."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

BLAS_THREADS = "OPENBLAS_NUM_THREADS"


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
