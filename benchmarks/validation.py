"""Cases: photographs of shoots, and scenes of objects, that the embedded models' training never saw."""

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from pipelines.curation.evaluate.figures import hint_agreement, hue_difference, hue_of
from training.colors import PAINTS, paint
from training.scenes import compose_background, paste, shaded, with_article
from training.shoots import PHOTOGRAPHS, Captioned, read_pack
from training.stamps import load_stamps, split_stamps

HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "teal")
SCENE = (160, 192)  # height, width
BOXES = Path(__file__).with_name("boxes.csv")
FAR = 60.0  # degrees, between the hue that a scene has and the other one that it is asked for


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture to colorize.

    Attributes:
        truth: (H, W, 3) uint8; its luma is the scan.
        caption: the context prompt, without the colours that are asked for.
        hinted: the caption with colours: written by looking at the photograph; the object's hue in a scene.
        group: the shoot of a photograph, the noun of a scene's object.
        hint_color: of a scene's object, or the true colour of a photograph's boxed thing, as #rrggbb.
        mask: (H, W) bool, its pixels.
        other, other_color: the same asked for in another hue, for recolouring.
    """

    id: str
    truth: NDArray[np.uint8]
    caption: str
    hinted: str
    group: str
    hint_color: str | None = None
    mask: NDArray[np.bool_] | None = None
    other: str | None = None
    other_color: str | None = None

    @property
    def is_scene(self) -> bool:
        return self.id.startswith("scene")

    @property
    def digest(self) -> str:
        """sha256 (hex) of what the case is, so that figures of one are not taken for another's."""
        parts = (self.truth.tobytes(), self.caption, self.hinted, self.group, self.other, self.other_color)
        return hashlib.sha256(
            b"".join(part if isinstance(part, bytes) else repr(part).encode() for part in parts)
        ).hexdigest()


def photographs(pack: Path, part: str) -> list[Case]:
    """A part's photographs (whole scenes, in their archived colours) with the archive's titles.

    In some of the validation and test parts, one thing of a colour that the caption names is boxed (BOXES; drawn by
    eye, before any model saw the pictures).
    """
    with BOXES.open(encoding="utf-8", newline="") as stream:
        boxes = {row["id"]: row for row in csv.DictReader(stream)}
    pictures = read_pack(pack, part)
    return [_photograph(one, boxes.get(one.id)) for name in PHOTOGRAPHS for one in pictures[name]]


def _photograph(one: Captioned, box: dict[str, str] | None) -> Case:
    case = Case(id=f"photograph-{one.id}", truth=one.pixels, caption=one.title, hinted=one.caption, group=one.shoot)
    if box is None:
        return case
    x, y, width, height = (int(box[side]) for side in ("x", "y", "width", "height"))
    mask = np.zeros(one.pixels.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    true = np.median(one.pixels[mask], axis=0)
    return replace(
        case,
        mask=mask,
        hint_color="#" + "".join(f"{round(value):02x}" for value in true),
        other=one.caption.replace(box["word"], box["other"], 1),
        other_color=_hex(box["other"]),
    )


def on_sheet(case: Case) -> Case:
    """A photograph on a gray mount, with a border on every side, some with lines of writing below; `mask` is the
    photograph."""
    generator = np.random.default_rng([11, int(hashlib.sha256(case.id.encode()).hexdigest()[:8], 16)])
    height, width = case.truth.shape[:2]
    top, bottom = (int(height * generator.uniform(0.08, 0.35)) for _ in range(2))
    left, right = (int(width * generator.uniform(0.08, 0.3)) for _ in range(2))
    sheet = shaded((height + top + bottom, width + left + right), generator, contrast=0.08)
    sheet = (sheet - sheet.mean() + generator.choice([0.06, 0.45, 0.75, 0.9])).clip(0, 1)
    pixels = np.round(sheet * 255).astype(np.uint8)
    if generator.random() < 0.5:
        ink = 20 if sheet.mean() > 0.4 else 235
        for x in range(left, left + width - 4, 5):
            pixels[top + height + 3 : top + height + 5, x : x + int(generator.integers(1, 5))] = ink
    pixels[top : top + height, left : left + width] = case.truth
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top : top + height, left : left + width] = True
    return replace(case, id=f"sheet-{case.id}", truth=pixels, mask=mask, other=None, other_color=None, hint_color=None)


def scenes(folder: Path, count: int = 60) -> list[Case]:
    """Held-out objects, each painted a hue, on painted grounds; every hue equally often."""
    stamps = split_stamps(load_stamps(folder, long_side=192))[1]
    return [_scene(stamps, number) for number in range(count)]


def _scene(stamps, number: int) -> Case:
    """The first draw whose object is large enough and really has the hue: white things take none."""
    for draw in range(100):
        case = _draw_scene(stamps, number, np.random.default_rng([7, number, draw]))
        chroma = np.hypot(*np.median(rgb2lab(case.truth)[case.mask], axis=0)[1:]) if case.mask.any() else 0
        if (
            case.mask.mean() > 0.03
            and chroma > 15
            and hint_agreement(case.truth, case.mask, case.hint_color)["hint_taken"]
        ):
            return case
    raise ValueError(f"no draw of scene {number} has the hue that it is to have")


def _draw_scene(stamps, number: int, generator: np.random.Generator) -> Case:
    stamp = stamps[generator.integers(len(stamps))]
    name, noun = HUES[number % len(HUES)], stamp.nouns[0]
    far = [hue for hue in HUES if hue_difference(hue_of(_hex(hue)), hue_of(_hex(name))) >= FAR]
    other = far[generator.integers(len(far))]
    background, words = compose_background(SCENE, None, generator)
    painted = paint(stamp.rgba[..., :3].astype(np.float32) / 255, name, generator)
    alpha = stamp.rgba[..., 3].astype(np.float32) / 255
    canvas = np.dstack([background, np.zeros(SCENE, np.float32)]).astype(np.float32)
    paste(canvas, np.dstack([painted, np.ones(alpha.shape, np.float32)]), alpha, (0, 0, 1, 1), generator)
    return Case(
        id=f"scene-{number:03d}",
        truth=np.round(canvas[..., :3].clip(0, 1) * 255).astype(np.uint8),
        caption=f"a photo of {with_article(noun)}{words}",
        hinted=f"a photo of {with_article(f'{name} {noun}')}{words}",
        group=noun,
        hint_color=_hex(name),
        mask=canvas[..., 3] > 0.9,
        other=f"a photo of {with_article(f'{other} {noun}')}{words}",
        other_color=_hex(other),
    )


def _hex(name: str) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in PAINTS[name].rgb)
