"""The validation split: photographs of titles, and scenes of objects, that the embedded model's training never saw."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from pipelines.curation.evaluate.figures import hint_agreement, hue_difference, hue_of
from training.captions import measured_phrases, tones
from training.colors import PAINTS, paint
from training.photographs import load_photographs
from training.scenes import compose_background, paste, with_article
from training.stamps import load_stamps, split_stamps

HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "teal")
SCENE = (160, 192)  # height, width
SAME_TITLE = 0.6  # Jaccard index: one shoot was archived under several spellings of a title
FAR = 60.0  # degrees, between the hue that a scene has and the other one that it is asked for


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture to colorize.

    Attributes:
        truth: (H, W, 3) uint8; its luma is the scan.
        caption: the context prompt, without the colours that are asked for.
        hinted: the caption with colours: measured on a photograph, the object's hue in a scene.
        group: the title of a photograph, the noun of a scene's object.
        hint_color: of a scene's object, as #rrggbb.
        mask: (H, W) bool, its pixels.
        other, other_color: the same scene asked for in another hue, for recolouring.
        seen: a title of the training is nearly this photograph's: it may be of the same shoot.
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
    seen: bool = False

    @property
    def digest(self) -> str:
        """sha256 (hex) of what the case is, so that figures of one are not taken for another's."""
        parts = (self.truth.tobytes(), self.caption, self.hinted, self.group, self.other, self.other_color)
        return hashlib.sha256(
            b"".join(part if isinstance(part, bytes) else repr(part).encode() for part in parts)
        ).hexdigest()


def photographs(path: Path) -> list[Case]:
    """The held-out photographs, in their archived colours, with the archive's titles."""
    cases, (training, held_out) = [], load_photographs(path, corrected=False)
    for number, one in enumerate(held_out):
        generator = np.random.default_rng(number)
        picture = one.pixels.astype(np.float32) / 255
        phrases = measured_phrases(picture, generator) or [tones(picture, generator)]
        cases.append(
            Case(
                id=f"photograph-{number:03d}",
                truth=one.pixels,
                caption=one.title,
                hinted=", ".join([one.title, *phrases[:3]]),
                group=one.title,
                seen=max(_shared_words(one.title, other.title) for other in training) >= SAME_TITLE,
            )
        )
    return cases


def _shared_words(one: str, other: str) -> float:
    """Jaccard index of two titles' words of three letters or more."""
    first, second = (set(re.findall(r"[a-z]{3,}", title.lower())) for title in (one, other))
    return len(first & second) / max(len(first | second), 1)


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
