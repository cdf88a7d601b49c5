"""How a run of the playbook ended, for a machine: what its files say, and what they cannot say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError, RunError
from benchmark.records import ClusterResult, Comparison, RunRecord

Policy = Literal["strict", "nodes"]


@dataclass(frozen=True)
class Outcome:
    """`run` and `result` are absent where no run was opened.

    `broke` says, in sentences, why the playbook did not come to its end as it should; empty where it did. `refused`:
    because of what it was given, before any node was touched. `against_baseline`: what changed, or why that cannot be
    reported; empty where there is no baseline.
    """

    run: RunRecord | None = None
    result: ClusterResult | None = None
    broke: str = ""
    refused: bool = False
    against_baseline: Comparison | str = ""

    @property
    def word(self) -> str:
        """The outcome in a word, for a headline."""
        if self.result is None or self.broke:
            return "REFUSED" if self.refused else "BROKEN"
        if self.result.partial:
            return "IN PROGRESS" if self.result.in_progress else "PARTIAL"
        return "VALID" if self.result.verdict.valid else "INVALID"

    def exit_code(self, policy: Policy) -> int:
        """Return what `python3 -m benchmark ci` ends with.

        `strict`: a node that failed, or an invalid verdict, is EXIT_INVALID. `nodes`: only a node that failed is. A
        run that broke or was interrupted is RunError's.
        """
        if self.refused:
            return InputError.exit_code
        if self.result is None or self.broke or self.result.partial:
            return RunError.exit_code
        failed = any(not row.counted for row in self.result.nodes)
        invalid = policy == "strict" and not self.result.verdict.valid
        return EXIT_INVALID if failed or invalid else EXIT_VALID
