"""Reads, checks and decodes a row's scan; whatever is wrong with it is an `InputImageError`."""

import io
import posixpath
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import urlsplit

import torch

from diffcolor.models import Models
from diffcolor.negatives import LIMIT, negative_odds
from diffcolor.prompts import prompt_advice
from diffcolor.reference import Reference
from diffcolor.scan import Scan
from manifests.locations import Reach, redacted, without_secrets
from manifests.schema import ManifestRow
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.formats.table import format_of_name
from pipelines.images.gray import GrayImage, decode_gray
from pipelines.images.rgb import at_most, read_rgb
from pipelines.images.rules import Rules, Toned
from pipelines.images.view import View
from pipelines.images.xmp import MAX_BYTES, BadXmpError, parsed
from pipelines.job import JobSpec
from pipelines.ledger.identity import fit_key
from pipelines.ledger.task import Task
from pipelines.store.fetch import beside, fetch_uri
from pipelines.store.retry import FULL, OnRetry, Patience, ignore_retry, is_transient
from pipelines.worker.rows import DecodedRow, Example, FitRequest

MAX_INPUT_BYTES = 4 << 30
_WEB = ("http://", "https://")
_WEB_PATIENCE = 60.0  # seconds: a web server that is down is one of many, and seldom comes back within the job


def decode_row(task: Task, spec: JobSpec, models: Models, on_retry: OnRetry) -> DecodedRow:
    """A row as the model will see it, with what there is to warn about.

    Raises:
        InputImageError: the scan cannot be colorized.
    """
    row, options = task.row, spec.outputs
    rules = Rules(max_pixels=spec.max_pixels, toned=options.toned, assume_srgb=options.assume_srgb, reach=spec.reach)
    view, input_sha256 = read_scan(row, rules, spec.patience, on_retry)
    warnings = [*row.warnings, *view.image.warnings]
    if view.halftone:
        warnings.append(f"halftone: printed in dots {view.halftone:.1f} pixels apart; the model sees it without them")
    warnings += prompt_advice(
        models.vocabulary, models.tokenizer, row.caption, row.target_prompts, is_fitted=models.base is not None
    )
    size = models.working_size(*view.shape)
    gray = torch.from_numpy(view.gray(*size))[None]
    if not row.negative and negative_odds(models.coarse, gray) > LIMIT:
        warnings.append("likely_negative: if the scan is a negative, say so: --negative, or the column 'negative'")
    scan = Scan(
        gray=gray,
        context_prompt=row.caption,
        anti_color_prompts=row.anti_color_prompts or spec.config.fit.anti_color_prompts,
        seed=row.seed,
    )
    picture_box = None if row.regions else next(iter(view.regions), None)
    key = fit_key(input_sha256, row, models.identity, spec.config, picture_box)
    reference = None
    if row.reference:
        public = spec.reach.needs_public_address(row.reference)
        reference = read_example(row.reference, models, spec.patience, on_retry, public)
    return DecodedRow(
        task=task,
        view=view,
        picture_box=picture_box,
        input_sha256=input_sha256,
        gray_sha256=scratch.sha256_of_pixels(view.image.gray),
        request=FitRequest(fit_key=key, scan=scan),
        warnings=tuple(warnings),
        reference=reference,
    )


def read_example(
    uri: str, models: Models, patience: Patience, on_retry: OnRetry = ignore_retry, public: bool = False
) -> Example:
    """The colour picture at a URI.

    Raises:
        InputImageError: `bad_reference`, it cannot be read.
    """
    try:
        with _fetched(uri, MAX_INPUT_BYTES, patience, on_retry, public) as file:
            return example_of(file, redacted(uri), models)
    except (OSError, InputImageError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = without_secrets(str(error)) or type(error).__name__
        message = f"the reference {redacted(uri)} cannot be read: {reason}"
        raise InputImageError("bad_reference", message) from error


def example_of(file: BinaryIO, name: str, models: Models) -> Example:
    """The colour picture in a file.

    Raises:
        InputImageError, ValueError: it cannot be read.
    """
    digest = scratch.sha256_of_file(file)
    return Example(name=name, sha256=digest, reference=Reference(models.coarse, at_most(read_rgb(file), 1 << 20)))


def read_scan(row: ManifestRow, rules: Rules, patience: Patience, on_retry: OnRetry) -> tuple[View, str]:
    """The part of the scan that is colorized, and the sha256 of its file."""
    with _opened(row, rules.reach, patience, on_retry) as file:
        input_sha256 = scratch.sha256_of_file(file)
        if row.image_sha256 and row.image_sha256 != input_sha256:
            message = f"sha256 {row.image_sha256} expected, {input_sha256} found: not the catalogued file"
            raise InputImageError("input_changed", message)
        toned = Toned(row.toned) if row.toned else rules.toned
        image = decode_gray(file, replace(rules, toned=toned, negative=row.negative), row.page)
    if row.image is not None:
        image = _with_sidecar(image, row.image, patience, on_retry)
        image = replace(image, warnings=(*image.warnings, *_misnamed(row, image.source.format)))
    view = View(image, row.regions, row.color_places).check()
    return view if row.regions or row.whole_sheet else view.on_sheet(), input_sha256


def _opened(row: ManifestRow, reach: Reach, patience: Patience, on_retry: OnRetry) -> BinaryIO:
    if row.image is None:
        return io.BytesIO(row.image_bytes or b"")
    try:
        public = reach.needs_public_address(row.image)
        return _fetched(row.image, MAX_INPUT_BYTES, patience, on_retry, public)
    except FileNotFoundError as error:
        raise InputImageError("not_found", f"no object at {redacted(row.image)}") from error
    except PermissionError as error:
        reason = f": {error}" if "--allow-input" in str(error) else ""
        raise InputImageError("denied", f"no permission to read {redacted(row.image)}{reason}") from error


def _fetched(uri: str, limit: int, patience: Patience, on_retry: OnRetry, public: bool = False) -> BinaryIO:
    """Raises FileNotFoundError, PermissionError, an OSError if this disk is full, or an InputImageError."""
    if uri.startswith(_WEB):
        patience = replace(patience, total=min(patience.total, _WEB_PATIENCE))
    try:
        return fetch_uri(uri, limit, patience, on_retry, public)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # each store has exceptions of its own
        status = getattr(error, "status", None)  # over plain HTTP
        if status in (401, 403):
            raise PermissionError(str(error)) from error
        if status in (404, 410):
            raise FileNotFoundError(str(error)) from error
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        kind = "input_unavailable" if is_transient(error) else "unreadable"
        reason = without_secrets(str(error))
        raise InputImageError(kind, f"{redacted(uri)}: {type(error).__name__}: {reason}") from error


def _misnamed(row: ManifestRow, kind: str) -> tuple[str, ...]:
    """A warning where a file's suffix is that of another format than its content."""
    promised = format_of_name(row.image or "")
    if promised is None or promised.name == kind:
        return ()
    suffix = posixpath.splitext(urlsplit(row.image or "").path)[1].lower()
    return (f"wrong_extension: it is named {suffix}, its content is {kind}, and was read as that",)


def _with_sidecar(image: GrayImage, uri: str, patience: Patience, on_retry: OnRetry) -> GrayImage:
    """The scan with the XMP of the `.xmp` file beside it, if there is one: `a.tif.xmp` or `a.xmp`."""
    if uri.startswith(_WEB):  # a web server has no folder to look into
        return image
    for sidecar in beside(uri, (f"{uri}.xmp", f"{posixpath.splitext(uri)[0]}.xmp"), patience, on_retry):
        try:
            with _fetched(sidecar, MAX_BYTES, patience, on_retry) as file:
                packet = file.read()
        except (FileNotFoundError, PermissionError):  # without the right to list, S3 reports a missing key as denied
            continue
        name = posixpath.basename(sidecar)
        try:
            parsed(packet)
        except BadXmpError as error:
            return replace(image, warnings=(*image.warnings, f"xmp_dropped: {name}: {error}"))
        replaced = ("XMP of the file itself (its .xmp file was taken)",) if image.metadata.xmp else ()
        source = replace(image.source, not_carried=(*image.source.not_carried, *replaced))
        return replace(image, source=source, metadata=replace(image.metadata, xmp=packet))
    return image
