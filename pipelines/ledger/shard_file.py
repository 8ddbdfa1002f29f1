"""A closed shard as a Parquet file, and back."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ledger.results import SCHEMA, ResultRow


def carried_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a table of results that are the manifest's own."""
    return pa.schema([item for item in schema if item.name not in SCHEMA.names])


def _to_table(rows: list[ResultRow], carried: pa.Schema) -> pa.Table:
    """Rows as one table: our columns, then the manifest's own in their own types."""
    schema = pa.unify_schemas([SCHEMA, carried]) if len(carried) else SCHEMA
    return pa.Table.from_pylist([{**row.to_record(), **row.extra} for row in rows], schema=schema)


def to_parquet(rows: list[ResultRow], carried: pa.Schema) -> bytes:
    """A shard's file; `carried` is the schema of the manifest's own columns."""
    buffer = io.BytesIO()
    pq.write_table(_to_table(rows, carried), buffer)
    return buffer.getvalue()


def read_table(content: bytes) -> pa.Table:
    """The inverse of `to_parquet`, as a table."""
    return pq.read_table(pa.BufferReader(content))


def rows_of(content: bytes) -> list[ResultRow]:
    """The inverse of `to_parquet`."""
    return [ResultRow.from_record(record) for record in read_table(content).to_pylist()]
