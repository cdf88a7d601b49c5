"""Keep Python's garbage collector from delaying the GPU and the queries."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def still() -> Iterator[None]:
    """Disable the collector: freeing GPU objects in the middle of a capture would end the process."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def leave_loaded() -> None:
    """Exclude all objects that are loaded by now from collection.

    Otherwise the collector would scan half a million objects again and again, and delay all queries for a quarter of a
    second each time.
    """
    gc.collect()
    gc.freeze()


def look_again() -> None:
    """Include all objects in collection again."""
    gc.unfreeze()
