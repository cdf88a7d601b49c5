"""The known formats of trace files, by their columns: the controller checks the first line, the node reads all."""

from __future__ import annotations

MOONCAKE = ("timestamp", "input_length", "output_length")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# How much of a file's first line is checked before a run.
LOOKED_AT = 4096
COLUMNS = f"Mooncake's JSON lines ({', '.join(MOONCAKE)}, hash_ids) or Azure's CSV ({', '.join(AZURE)})"


def is_mooncake(first_line: str) -> bool:
    """Return whether a file with this beginning has JSON lines; otherwise it is taken for CSV."""
    return first_line.lstrip("\ufeff \t").startswith("{")


def lacking(first_line: str) -> list[str]:
    """Return the columns missing in a file with this beginning; none if its first line is too long to check."""
    if len(first_line) >= LOOKED_AT:
        return []
    if is_mooncake(first_line):
        return [name for name in MOONCAKE if f'"{name}"' not in first_line]
    names = [name.strip('" ') for name in first_line.strip("\ufeff\r\n").split(",")]
    return [name for name in AZURE if name not in names]
