"""How a run ended, or one node in it, in the words that lists of runs use."""

from __future__ import annotations

from typing import Final

# In a partial run a node without a result need not have failed.
VALID: Final = "valid"
INVALID: Final = "invalid"
PARTIAL: Final = "partial"
UNFINISHED: Final = "no summary"
# Its controller is at work, on this machine.
IN_PROGRESS: Final = "in progress"
