"""Rows as a Parquet file. Needs pyarrow, which the controller's requirements lack: users of Parquet have it."""

from __future__ import annotations

from itertools import islice
from typing import BinaryIO

from benchmark.cluster.export.tables import Rows
from benchmark.errors import SetupError

# Most rows in memory at a time.
BATCH = 10_000


def write_parquet(table: Rows, target: BinaryIO) -> None:
    """Write the table. Raises SetupError if pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as missing:
        raise SetupError(
            f"Parquet needs the package pyarrow, and {missing.name} is not installed here: pip install pyarrow, or "
            "use --format csv."
        ) from None
    rows = iter(table.rows)
    first = [list(row) for row in islice(rows, BATCH)]
    columns = list(zip(*first, strict=True)) if first else [() for _ in table.heads]
    schema = pa.schema([(name, _type(pa, column)) for name, column in zip(table.heads, columns, strict=True)])
    with pq.ParquetWriter(target, schema) as writer:
        batch = first
        while batch:
            arrays = list(zip(*batch, strict=True))
            made = [pa.array(list(values), type=field.type) for values, field in zip(arrays, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(made, schema=schema))
            batch = [list(row) for row in islice(rows, BATCH)]


def _type(pa: object, values: tuple[object, ...]) -> object:
    """Return the column's type: that of its values, or text if it has none."""
    kinds = {type(value) for value in values if value is not None}
    name = "string"
    if kinds == {bool}:
        name = "bool_"
    elif kinds == {int}:
        name = "int64"
    elif kinds and kinds <= {int, float}:
        name = "float64"
    return getattr(pa, name)()
