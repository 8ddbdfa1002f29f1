"""Every fault of a manifest, found in one pass, each with its row, its value and its remedy."""

import hashlib
import re
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.color_hints import apply_color_hints, parse_color_hints
from manifests.color_places import read_places
from manifests.errors import Problem
from manifests.ids import MAX_ID
from manifests.locations import resolve
from manifests.schema import COLUMNS, SCHEMA, Defaults, ManifestRow

_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_ID - 1}}}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_Fault = Callable[[str, str], None]  # adds a problem of this kind with this message
# Columns of the results; a carried column may not take their names.
RESERVED = frozenset(
    (
        "status error_kind error_message warnings outputs primary_image artifact input_sha256 gray_sha256 "
        "width height base_model judge config_digest seconds luminance_mismatches row_digest fit_key trained_steps "
        "primary_sha256 artifact_sha256 resumed_at context_prompt source halftone preview primary_preview software "
        "finished_at losses decision picture_box"
    ).split()
)


def accepts(actual: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column of type `actual` can be read as one of type `wanted`."""
    if pa.types.is_null(actual):
        return True
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(actual) or pa.types.is_large_list(actual) or pa.types.is_fixed_size_list(actual)
        return is_list and accepts(actual.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        return pa.types.is_struct(actual) and all(
            part.name in wanted.names and accepts(part.type, wanted.field(part.name).type) for part in actual
        )
    if pa.types.is_string(wanted):
        if pa.types.is_dictionary(actual):
            actual = actual.value_type
        return pa.types.is_string(actual) or pa.types.is_large_string(actual) or pa.types.is_string_view(actual)
    if pa.types.is_binary(wanted):
        return pa.types.is_binary(actual) or pa.types.is_large_binary(actual)
    return pa.types.is_boolean(actual) if pa.types.is_boolean(wanted) else pa.types.is_integer(actual)


def check_schema(schema: pa.Schema, renamed: Mapping[str, str]) -> list[Problem]:
    """Faults of the columns themselves: missing, of a wrong type, or with a name that the results use.

    Args:
        renamed: the file's column name to ours.
    """

    def problem(kind: str, message: str) -> Problem:
        return Problem(kind, None, None, message)

    names = [renamed.get(name, name) for name in schema.names]
    faults = [
        problem("missing_column", f"--column {ours}={theirs}: the file has no column {theirs!r}, only {schema.names}")
        for theirs, ours in renamed.items()
        if theirs not in schema.names
    ]
    faults += [
        problem("unknown_column", f"--column {ours}=...: columns are {', '.join(COLUMNS)}")
        for ours in renamed.values()
        if ours not in COLUMNS
    ]
    faults += [
        problem("duplicate_column", f"column {name!r} occurs twice")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    for name in ("id", "caption"):
        if name not in names:
            remedy = f"add it, or map another column to it: --column {name}=THEIR_NAME"
            faults.append(problem("missing_column", f"column {name!r} is required; {remedy} (found {schema.names})"))
    if "image" not in names and "image_bytes" not in names:
        faults.append(problem("missing_column", "one of the columns 'image' (a URI) or 'image_bytes' is required"))
    for actual, name in zip(schema, names, strict=True):
        if name in COLUMNS and not accepts(actual.type, SCHEMA.field(name).type):
            faults.append(problem("bad_type", f"column {name!r} is {actual.type}, expected {SCHEMA.field(name).type}"))
        if name in RESERVED:
            faults.append(problem("reserved_column", f"column {name!r} is a column of the results; rename it"))
    return faults


def seed_of(name: str) -> int:
    """The default seed: 63 bits of the sha256 of a row's group_id, else of its id, so that it survives reordering and
    copying. A series shares it: the start noise decides much of what a prompt leaves open, so its colours agree.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class Validator:
    """Checks rows one by one. Memory: 8 bytes for every id.

    Args:
        base: folder that relative image paths start from.
        defaults: for rows that do not say otherwise.
        repeated: the `repeated_ids` of an earlier pass; without them no duplicate is reported.
    """

    def __init__(self, base: str, defaults: Defaults | None = None, repeated: frozenset[int] = frozenset()) -> None:
        self.base, self.defaults, self.repeated = base, defaults or Defaults(), repeated
        self.problems: list[Problem] = []
        self._ids = array("Q")
        self._first_row: dict[str, int] = {}

    def repeated_ids(self) -> frozenset[int]:
        """Digests (64 bits) of ids that were seen more than once."""
        ids, counts = np.unique(np.frombuffer(self._ids, np.uint64), return_counts=True)
        return frozenset(ids[counts > 1].tolist())

    def check(self, number: int, values: Mapping[str, Any]) -> ManifestRow | None:
        """The row, or None when it has problems (which are then in `problems`)."""
        before, row_id = len(self.problems), values.get("id")

        def fault(kind: str, message: str) -> None:
            self.problems.append(Problem(kind, number, row_id, message))

        self._check_id(number, row_id, fault)
        image = self._image(values, fault)
        caption, warnings = (values.get("caption") or "").strip(), []
        targets = tuple(prompt.strip() for prompt in values.get("target_prompts") or () if prompt and prompt.strip())
        if not caption and self.defaults.caption:
            caption = self.defaults.caption
            warnings.append(f"no caption: the context prompt is the default, {caption!r}")
        if not caption:
            fault("no_prompt", "caption is empty; write what the picture shows, or pass --default-caption TEXT")
        if len(set(targets)) < len(targets):
            fault("duplicate_prompt", "target_prompts holds the same prompt twice")
        try:
            hints = parse_color_hints(values.get("color_hints") or "")
            if hints:
                targets = tuple(dict.fromkeys([*targets, apply_color_hints(caption, hints)]))
        except ValueError as error:
            fault("bad_hint", str(error))
        seed = values.get("seed")
        if seed is not None and not 0 <= seed < 2**63:
            fault("bad_seed", f"seed {seed} is outside 0 .. 2^63-1")
        page, regions, toned = values.get("page"), values.get("regions") or (), values.get("toned") or None
        page = self.defaults.page if page is None else page
        if page is not None and page < 0:
            fault("bad_page", f"page {page}; pages count from 0")
        if any(len(box or ()) != 4 or any(side is None or side < 0 for side in box) or 0 in box[2:] for box in regions):
            fault("bad_region", f"regions {regions!r}; give boxes [x, y, width, height] in pixels")
        try:
            places = read_places(values.get("color_points"), values.get("color_boxes"))
        except ValueError as error:
            fault("bad_place", f"color_points or color_boxes: {error}")
        try:
            reference = (
                resolve(values["reference"], self.base, self.defaults.reach) if values.get("reference") else None
            )
        except ValueError as error:
            fault("bad_reference", f"reference: {error}")
        if toned not in (None, "reject", "desaturate"):
            fault("bad_toned", f"toned {toned!r} is neither 'reject' nor 'desaturate'")
        expected = values.get("image_sha256")
        if expected is not None and not _SHA256.fullmatch(expected):
            fault("bad_sha256", f"image_sha256 {expected!r} is not 64 hexadecimal digits")
        if len(self.problems) > before:
            return None
        assert row_id is not None  # else `_check_id` has added a problem
        negatives = tuple(prompt for prompt in values.get("anti_color_prompts") or () if prompt and prompt.strip())
        return ManifestRow(
            id=row_id,
            image=image,
            image_bytes=values.get("image_bytes"),
            caption=caption,
            target_prompts=targets or (caption,),
            color_hints=values.get("color_hints") or None,
            anti_color_prompts=negatives or None,
            group_id=values.get("group_id"),
            seed=seed_of(values.get("group_id") or row_id) if seed is None else seed,
            page=page,
            regions=tuple(tuple(box) for box in regions),
            color_places=places,
            reference=reference,
            toned=toned,
            negative=self.defaults.negative if (given := values.get("negative")) is None else given,
            whole_sheet=self.defaults.whole_sheet,
            prompt_writer=values.get("prompt_writer") or None,
            image_sha256=expected.lower() if expected else None,
            extra={name: value for name, value in values.items() if name not in COLUMNS},
            warnings=tuple(warnings),
        )

    def _check_id(self, number: int, row_id: str | None, fault: _Fault) -> None:
        if not row_id:
            fault("bad_id", "id is empty; every row needs a unique one")
        elif not _ID.fullmatch(row_id):
            # Ids become folder names: no "..", no hidden folder, nothing that needs quoting.
            fault("bad_id", f"use letters, digits, '.', '_' and '-', not starting with '.' or '-', at most {MAX_ID}")
        else:
            name = row_id.casefold()
            digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
            self._ids.append(digest)
            if digest in self.repeated and (first := self._first_row.setdefault(name, number)) != number:
                fault("duplicate_id", f"the same id (ignoring case) is already in row {first}")

    def _image(self, values: Mapping[str, Any], fault: _Fault) -> str | None:
        uri, content = values.get("image"), values.get("image_bytes")
        if bool(uri) == (content is not None):
            given = "both are given" if uri else "neither is given"
            fault("no_image" if not uri else "two_images", f"give either image (a URI) or image_bytes; {given}")
        elif uri:
            try:
                return resolve(uri, self.base, self.defaults.reach)
            except ValueError as error:
                fault("bad_image", str(error))
        return None
