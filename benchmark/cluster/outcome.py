"""How a run of the playbook ended, for programs: from its files, and from what is in no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError, RunError
from benchmark.records import ClusterResult, Comparison, RunRecord

Policy = Literal["strict", "nodes"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `run` and `result` are absent if no run was opened.

    `broke`: why the playbook did not end normally, in sentences; empty if it did. `refused`: it broke because of its
    input, before any node was touched. `against_baseline`: the change, or why it is unknown; empty without a baseline.
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
        """Return the exit code of `python3 -m benchmark ci`.

        `strict`: EXIT_INVALID if a node failed or the verdict is invalid; `nodes`: only if a node failed. A run that
        broke or was interrupted has RunError's code.
        """
        if self.refused:
            return InputError.exit_code
        if self.result is None or self.broke or self.result.partial:
            return RunError.exit_code
        failed = any(not row.counted for row in self.result.nodes)
        invalid = policy == "strict" and not self.result.verdict.valid
        return EXIT_INVALID if failed or invalid else EXIT_VALID
