"""Which files of traces are known, by their columns: the controller looks at the first line, the node reads all."""

from __future__ import annotations

MOONCAKE = ("timestamp", "input_length", "output_length")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# Of a file's first line, so much is looked at before a run.
LOOKED_AT = 4096
COLUMNS = f"Mooncake's JSON lines ({', '.join(MOONCAKE)}, hash_ids) or Azure's CSV ({', '.join(AZURE)})"


def is_mooncake(first_line: str) -> bool:
    """Return whether a file that begins so holds JSON lines; else it is taken for CSV."""
    return first_line.lstrip("\ufeff \t").startswith("{")


def lacking(first_line: str) -> list[str]:
    """Return the columns that a file which begins so does not have; of a line longer than what is looked at none."""
    if len(first_line) >= LOOKED_AT:
        return []
    if is_mooncake(first_line):
        return [name for name in MOONCAKE if f'"{name}"' not in first_line]
    names = [name.strip('" ') for name in first_line.strip("\ufeff\r\n").split(",")]
    return [name for name in AZURE if name not in names]
