"""A closed shard as a Parquet file, and back."""

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ledger.results import SCHEMA, ResultRow


def carried_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a table of results that are the manifest's own."""
    return pa.schema([item for item in schema if item.name not in SCHEMA.names])


_ORIGIN = b"diffcolor:shard"
_NUMBER = "row_number"


def to_parquet(rows: list[ResultRow], carried: pa.Schema, origin: str) -> bytes:
    """A shard's file; `carried` is the schema of the manifest's own columns, `origin` says which shard it is."""
    schema = pa.unify_schemas([SCHEMA, carried]) if len(carried) else SCHEMA
    table = pa.Table.from_pylist([{**row.to_record(), **row.extra} for row in rows], schema=schema)
    return _written(table.replace_schema_metadata({_ORIGIN: origin.encode()}))


def _written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_table(content: bytes) -> pa.Table:
    """The inverse of `to_parquet`, as a table."""
    return pq.read_table(pa.BufferReader(content))


def rows_of(content: bytes) -> list[ResultRow]:
    """The inverse of `to_parquet`."""
    return [ResultRow.from_record(record) for record in read_table(content).to_pylist()]


def origin_of(content: bytes) -> str | None:
    """Which shard a file is; None in files of version 0.1.0."""
    origin = (pq.read_schema(pa.BufferReader(content)).metadata or {}).get(_ORIGIN)
    return origin.decode() if origin else None


def numbered_to_parquet(rows: Mapping[int, ResultRow]) -> bytes:
    """Some rows of a shard by row number."""
    table = pa.Table.from_pylist([row.to_record() for row in rows.values()], schema=SCHEMA)
    return _written(table.append_column(_NUMBER, pa.array(list(rows), pa.int64())))


def numbered_rows_of(content: bytes) -> dict[int, ResultRow]:
    """The inverse of `numbered_to_parquet`."""
    table = read_table(content)
    records = table.drop_columns(_NUMBER).to_pylist()
    return {
        number: ResultRow.from_record(record)
        for number, record in zip(table[_NUMBER].to_pylist(), records, strict=True)
    }
