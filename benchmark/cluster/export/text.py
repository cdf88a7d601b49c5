"""Rows as CSV and as a Markdown table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import StringIO
from itertools import zip_longest

from benchmark.cluster.export.tables import Rows
from benchmark.cluster.render.markdown import escape
from benchmark.cluster.render.node_table import cell


def csv_lines(table: Rows) -> Iterator[str]:
    """Yield the lines of a CSV file, headings first; text from nodes cannot become a formula in a spreadsheet."""
    line = StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(table.heads)
    for row in table.rows:
        writer.writerow([cell(value) for value in row])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def markdown_lines(table: Rows) -> Iterator[str]:
    """Yield the lines of a Markdown table, without empty columns; numbers are right-aligned."""
    values = [[_shown(value) for value in column] for column in zip(*table.rows, strict=True)]
    reported = [
        (head, cells) for head, cells in zip_longest(table.heads, values, fillvalue=()) if any(cells) or not values
    ]
    yield f"| {' | '.join(escape(head) for head, _ in reported)} |\n"
    yield f"| {' | '.join('---:' if all(map(_number, cells)) else '---' for _, cells in reported)} |\n"
    yield from (f"| {' | '.join(row)} |\n" for row in zip(*(cells for _, cells in reported), strict=True))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else escape(cell(value))


def _number(text: str) -> bool:
    return not text or re.fullmatch(r"-?[0-9.]+(e[+-]?[0-9]+)?", text) is not None
