"""`evaluate`: compares a job's pictures with their true colours, in figures with intervals."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcolor.judge import Judge
from pipelines.curation.evaluate.figures import against_truth, hint_agreement, interval, mean_ab, spread
from pipelines.curation.evaluate.floors import FLOORS, ORACLES
from pipelines.curation.evaluate.points import true_points, with_hints
from pipelines.curation.evaluate.truths import Truth
from pipelines.curation.evaluate.verdict import Verdict, verdict
from pipelines.curation.verify import read_scan_again
from pipelines.images.errors import InputImageError
from pipelines.images.paint import check_luma
from pipelines.images.rgb import at_most, read_mask, read_rgb
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, ResultRow
from pipelines.store.fetch import fetch_uri
from pipelines.store.store import Store

if TYPE_CHECKING:
    from pipelines.curation.evaluate.perceptual import Perceptual


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of every picture; `summary` has their means with 95 % intervals.

    Attributes:
        rows: for each picture its `id`, `prompt` and figures.
        points: so many true points were given to each picture.
        groups: for each picture its series, or its id: intervals of the verdict are over these.
        missing: by id, why a row could not be compared.
        dataset_metrics: figures of all pictures together. FID and KID; `series_spread` and `series_spread_truth`, which
            are how far the pictures of a series (the rows of one group_id) are apart in colour, as a mean over all
            series.
    """

    rows: list[dict[str, Any]]
    points: int = 0
    groups: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    dataset_metrics: dict[str, float] = field(default_factory=dict)

    def verdict(self) -> Verdict:
        """Error and colourfulness of all pictures together, beside the floors."""
        return verdict(self.rows, self.groups or None)

    def summary(self) -> dict[str, tuple[float, float, float, int]]:
        """Mean, low and high end of its 95 % interval, and number of pictures, of each figure."""
        known = {f"{name}_{what}" for name in (*FLOORS, *ORACLES) for what in ("error", "colorfulness")}
        names = dict.fromkeys(name for row in self.rows for name in row if name not in {"id", "prompt", *known})
        summary = {}
        for name in names:
            values = np.array([row[name] for row in self.rows if row.get(name) is not None], np.float64)
            if len(values):
                summary[name] = (*interval(values), len(values))
        return summary


# Figures of a picture, given its pixels, prompt and row.
Judged = Callable[[NDArray[np.uint8], str, ResultRow], dict[str, float]]


def evaluate(
    output: str,
    known: dict[str, Truth],
    *,
    variant: int = 1,
    points: int = 0,
    judged: dict[str, Judged] | None = None,
    perceptual: "Perceptual | None" = None,
) -> Evaluation:
    """Compares each ok row's picture with its truth.

    Args:
        variant: which of a row's prompts, counted from 1; 0 is the primary picture of stage 1.
        points: so many true points are given to each picture first (`points.true_points`).
        judged: by name, functions that score a picture with a CLIP model (`clip_judge`).
        perceptual: computes LPIPS, FID and KID.
    """
    store, rows, missing = Store(output), [], {}
    groups: list[str] = []
    series: dict[str, list] = defaultdict(list)
    for row in Ledger(store).current():
        if row.status != OK:
            missing[row.id] = f"its status is {row.status}"
            continue
        if row.id not in known:
            missing[row.id] = "no truth"
            continue
        key, prompt = _picture(row, variant)
        if key is None:
            missing[row.id] = f"it has no variant {variant}"
            continue
        try:
            with store.read_file(key) as file:
                rgb = read_rgb(file)
                mismatches = _mismatches(row, file)
            truth = known[row.id]
            with fetch_uri(truth.image) as file:
                true = read_rgb(file)
            if true.shape != rgb.shape:
                size = f"{true.shape[1]} x {true.shape[0]}, the picture {rgb.shape[1]} x {rgb.shape[0]}"
                raise ValueError(f"the truth is {size}")
            hint = truth.hint_color
            inside = _inside(truth, rgb.shape[:2]) if hint else None
            rgb, true = at_most(rgb), at_most(true)
            if points:
                rgb = with_hints(rgb, true_points(true, points))
            figures: dict[str, Any] = {"id": row.id, "prompt": prompt, **against_truth(rgb, true)}
            figures["luminance_mismatches"] = mismatches
            if hint and inside is not None:
                figures |= hint_agreement(rgb, inside, hint)
        except (InputImageError, OSError, ValueError) as error:
            missing[row.id] = str(error)
            continue
        if perceptual:
            figures |= perceptual.pair(rgb, true)
        if row.group_id:
            series[row.group_id].append((mean_ab(rgb), mean_ab(true)))
        for name, judge in (judged or {}).items():
            figures |= {f"{name}_{key}": value for key, value in judge(rgb, prompt, row).items()}
        rows.append(figures)
        groups.append(row.group_id or row.id)
    dataset_metrics = perceptual.dataset_metrics() if perceptual else {}
    apart = [(spread(ours), spread(true)) for ours, true in _of_several(series)]
    if apart:
        dataset_metrics["series_spread"], dataset_metrics["series_spread_truth"] = np.mean(apart, axis=0).tolist()
    return Evaluation(rows=rows, points=points, groups=groups, missing=missing, dataset_metrics=dataset_metrics)


def _of_several(series: dict[str, list]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The mean colours, ours and true, of each series that has more than one picture; (N, 2) each."""
    for pairs in series.values():
        if len(pairs) > 1:
            ours, true = zip(*pairs, strict=True)
            yield np.stack(ours), np.stack(true)


def _picture(row: ResultRow, variant: int) -> tuple[str | None, str]:
    """Key and prompt of a row's variant; None and "" where it has no such variant."""
    if variant == 0:
        return row.primary_image, row.context_prompt or ""
    if variant > len(row.outputs):
        return None, ""
    output = row.outputs[variant - 1]
    return output.image, output.prompt


def _mismatches(row: ResultRow, file: BinaryIO) -> int | None:
    """Number of pixels whose luma differs from the scan itself; None where the scan cannot be read any more."""
    if row.image is None:
        return None
    scan = read_scan_again(row)
    return check_luma(file, scan[0]).mismatches if scan else None


def _inside(truth: Truth, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The hinted object's pixels (H, W), averaged down as the pictures are for the comparison."""
    if truth.hint_mask:
        with fetch_uri(truth.hint_mask) as file:
            inside = read_mask(file)
        if inside.shape != shape:
            size = f"{inside.shape[1]} x {inside.shape[0]}, the picture {shape[1]} x {shape[0]}"
            raise ValueError(f"the hint's mask is {size}")
    elif truth.hint_box:
        inside = np.zeros(shape, bool)
        x, y, width, height = truth.hint_box
        inside[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    else:
        raise ValueError("a hint needs hint_mask or hint_box")
    inside = at_most(inside)
    if not inside.any() or inside.all():
        raise ValueError("the hint's object is empty, or the whole picture")
    return inside


def clip_judge(judge: Judge) -> Judged:
    """Scores by a CLIP model: `score`, the cosine to the prompt, and `margin`, the score less the cosine to the nearest
    anti-colour prompt."""
    import torch

    from diffcolor.config import FitConfig
    from diffcolor.measures import clip_margins

    def judged(rgb: NDArray[np.uint8], prompt: str, row: ResultRow) -> dict[str, float]:
        picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float().to(judge.device) / 255
        with torch.no_grad():
            features = judge.image_features(picture)
        positive = judge.text_features([prompt])
        negatives = judge.text_features(list(FitConfig().anti_color_prompts))[None]
        return {
            "score": float((features * positive).sum()),
            "margin": float(clip_margins(features, positive, negatives)[0]),
        }

    return judged
