"""Python's garbage collector, kept from holding up the GPU and the queries."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def still() -> Iterator[None]:
    """Keep it still: freeing what lies on the GPU in the middle of a capture would end the process."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def leave_loaded() -> None:
    """Let it pass over what is loaded by now and stays.

    It would look through half a million objects again and again, and hold up all queries for a quarter of a second
    each time.
    """
    gc.collect()
    gc.freeze()


def look_again() -> None:
    """Let it look at everything again."""
    gc.unfreeze()
