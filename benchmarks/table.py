"""A table on standard output, printed row by row, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Table:
    """Rows under named columns of given widths, with remarks between them; JSON keeps the full precision."""

    def __init__(self, columns: dict[str, int], about: dict[str, Any]) -> None:
        self.columns = columns
        self.about = about
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Print a row: values of columns, and a `note` after them. Other values are kept for JSON only."""
        if not self.rows:
            self._print(" ".join(f"{name:>{width}}" for name, width in self.columns.items()))
        self.rows.append(row)
        cells = (f"{_shown(row.get(name)):>{width}}" for name, width in self.columns.items())
        self._print(" ".join(cells) + (f"  {row['note']}" if row.get("note") else ""))

    def say(self, text: str, **values: Any) -> None:
        """Print a remark, and keep its values for JSON."""
        self.about |= values
        self._print(text)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps({**self.about, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")

    def _print(self, text: str) -> None:
        print(text, flush=True)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"
    return str(value)
