"""Whether torch.compile works on this machine: it needs a C compiler and Python's headers, which a node may lack."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def missing(device: str) -> str | None:
    """Return why nothing can be compiled on this machine, as the end of a sentence; None: it can."""
    import torch

    try:
        torch.compile(_trial, dynamic=True)(torch.ones(3, device=device))
    except Exception as error:  # mostly there is no C compiler, or Python's headers are not there
        return f"torch cannot compile here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return None


def _trial(states: Any) -> Any:
    return states * 2 + 1
