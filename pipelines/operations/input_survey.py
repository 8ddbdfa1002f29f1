"""Surveys a manifest's images before a job: reads and decodes them as the job would."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from diffcolor.coarse import CoarseColorizer, load_coarse
from diffcolor.geometry import fitting_size
from diffcolor.negatives import LIMIT, negative_odds
from manifests.schema import ManifestRow
from pipelines.images.errors import InputImageError
from pipelines.images.formats.codecs import format_for
from pipelines.images.rules import Rules
from pipelines.store.retry import Patience
from pipelines.worker.reading import read_scan

_PATIENCE = Patience(total=30.0)
_SEEN = 1 << 16  # pixels


@cache
def _coarse() -> CoarseColorizer:
    return load_coarse()


@dataclass(kw_only=True)
class InputSurvey:
    """Counts over the images that were read.

    Attributes:
        kinds: by format and depth ("tiff, 16 bit").
        outputs: by the format of their outputs.
        problems: by kind; `examples` has an id and the message of each.
        sheets: images on which the photograph was found within a mount, a border or a rebate.
        megapixels: of each readable image.
    """

    looked_at: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    sheets: int = 0
    megapixels: list[float] = field(default_factory=list)

    def add(self, row: ManifestRow, rules: Rules, format_: str = "input") -> None:
        """Reads one row's image and adds it to the counts."""
        self.looked_at += 1
        try:
            view, _ = read_scan(row, rules, _PATIENCE, lambda _error, _delay: None)
        except InputImageError as error:
            self.problems[error.kind] += 1
            self.examples.setdefault(error.kind, (row.id, error.message))
            return
        image, source = view.image, view.image.source
        height, width = image.gray.shape
        self.kinds[f"{source.format}, {source.depth} bit"] += 1
        self.outputs[format_for(format_, source.format, height, width, image.gray.dtype)[0]] += 1
        self.conversions[source.conversion] += 1
        self.warnings.update({warning.split(":")[0] for warning in image.warnings})
        if view.halftone:
            self.warnings["halftone"] += 1
        small = view.gray(*fitting_size(*view.shape, _SEEN))
        if not row.negative and negative_odds(_coarse(), torch.from_numpy(small)[None]) > LIMIT:
            self.warnings["likely_negative"] += 1
        if view.regions and not row.regions:
            self.sheets += 1
        self.megapixels.append(image.gray.size / 1e6)

    def to_json(self) -> dict[str, Any]:
        counters = {name: dict(value) for name, value in vars(self).items() if isinstance(value, Counter)}
        return {
            "looked_at": self.looked_at,
            "sheets": self.sheets,
            **counters,
            "examples": self.examples,
            "megapixels": self.sizes(),
        }

    def sizes(self) -> dict[str, float]:
        """Smallest, median and largest, in megapixels."""
        if not self.megapixels:
            return {}
        values = {
            "smallest": min(self.megapixels),
            "median": float(np.median(self.megapixels)),
            "largest": max(self.megapixels),
        }
        return {name: round(value, 2) for name, value in values.items()}

    def lines(self, of: int) -> Iterable[str]:
        """A summary for people; `of` is the manifest's number of rows."""

        def listed(counts: Counter[str]) -> str:
            return ", ".join(f"{count} x {name}" for name, count in counts.most_common())

        yield f"looked at {self.looked_at} of {of} images: {self.problems.total()} cannot be colorized"
        if self.kinds:
            sizes = self.sizes()
            yield f"  formats      {listed(self.kinds)}"
            yield f"  sizes        {sizes['smallest']} to {sizes['largest']} megapixels, median {sizes['median']}"
            yield f"  gray values  {listed(self.conversions)}"
            yield f"  output as    {listed(self.outputs)}"
        if self.sheets:
            yield f"  on a sheet   {self.sheets}: what surrounds the photograph gets no colour (--whole-sheet: it does)"
        if self.warnings:
            yield f"  warnings     {listed(self.warnings)}"
        for kind, count in self.problems.most_common():
            row_id, message = self.examples[kind]
            yield f"  {kind}: {count}, for example {row_id}: {message}"
