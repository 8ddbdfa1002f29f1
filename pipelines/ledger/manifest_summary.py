"""A manifest read through once, before anything is started."""

from dataclasses import dataclass

import pyarrow as pa

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, redacted
from manifests.read import extra_columns, read_schema, stamp, validated
from manifests.schema import ManifestRow
from pipelines.errors import JobError
from pipelines.job import JobRequest
from pipelines.ledger.identity import ManifestDigest
from pipelines.store.retry import is_transient, retrying

_NAMED_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True)
class ManifestSummary:
    """What is known of a manifest after reading it.

    Attributes:
        digest: identifies it, rows and carried columns.
        carried: schema of the columns that are carried into the results.
        stamp: of its files: another stamp, another manifest.
    """

    rows: int
    digest: ManifestDigest
    carried: pa.Schema
    stamp: list[tuple]


def summarize(request: JobRequest) -> ManifestSummary:
    """Reads the manifest through.

    Raises:
        ManifestError: with every problem of the manifest.
        JobError: its store was unreachable for longer than our patience.
    """

    def read() -> ManifestSummary:
        carried = extra_columns(read_schema(request.manifest), request.columns).remove_metadata()
        digest = ManifestDigest(str(carried), request.shard_rows)
        before, place = stamp(request.manifest), f"{absolute(request.spec.output).rstrip('/')}/"
        inside: list[Problem] = []

        def seen(row: ManifestRow) -> None:
            digest.add(row)
            if row.image and absolute(row.image).startswith(place) and len(inside) < _NAMED_PROBLEMS:
                message = f"{redacted(row.image)} is inside the output; choose another --output, away from the masters"
                inside.append(Problem("unsafe_output", None, row.id, message))

        rows = validated(request.manifest, request.columns, request.defaults, seen)
        if inside:
            raise ManifestError(request.manifest, inside)
        return ManifestSummary(rows=rows, digest=digest, carried=carried, stamp=before)

    try:
        return retrying(read, request.spec.patience)
    except Exception as error:
        if is_transient(error):
            raise unreadable(request, error) from error
        raise


def unreadable(request: JobRequest, error: BaseException) -> JobError:
    """The error of a manifest whose store is unreachable."""
    return JobError(f"the manifest {redacted(request.manifest)} cannot be read: {type(error).__name__}: {error}")
