"""How a run, or a node in it, ended, in the words of lists of runs."""

from __future__ import annotations

from typing import Final

# In a partial run a node without a result has not necessarily failed.
VALID: Final = "valid"
INVALID: Final = "invalid"
PARTIAL: Final = "partial"
UNFINISHED: Final = "no summary"
# Its controller is running on this machine.
IN_PROGRESS: Final = "in progress"
