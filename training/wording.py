"""What is said of a photograph, and the same photograph with one thing in another colour, named in its caption."""

import re
from collections import Counter

import cv2
import numpy as np
from numpy.typing import NDArray

from training.captions import OPENINGS, color_a_noun, measured_phrases, tones
from training.colors import COLOR_OF_WORD, HUES, NEUTRALS, luma, name_pixels, paint, spoken, with_luma

MORE_WORDS = {
    "navy": "blue", "olive": "green", "khaki": "beige", "maroon": "red", "silver": "gray", "rust": "brown",
    "rusty": "brown", "lavender": "purple", "magenta": "purple", "lilac": "purple", "coral": "orange", "mint": "green",
    "burgundy": "red", "ivory": "beige", "aqua": "teal", "cyan": "teal", "mustard": "yellow", "peach": "orange",
}  # fmt: skip
COLORS = COLOR_OF_WORD | MORE_WORDS
SHADES = "pale|light|dark|deep|bright|dull|soft|faded|vivid|muted|warm|pastel|royal|sky|lime|mint|hot|brick|blood"
_COLOR = "|".join(sorted(COLORS, key=len, reverse=True))
NAMED = re.compile(rf"\b(?:(?:{SHADES}|\w+ish)[ -])*((?:{_COLOR})(?:[ -](?:{_COLOR}))*)\b", re.IGNORECASE)
LOCALISABLE = ("red", "yellow", "green", "blue", "purple", "pink", "teal", "orange")  # brown and beige are everywhere


def describe(title: str, caption: str, picture: NDArray[np.float32], generator: np.random.Generator) -> str:
    """One of the things that may be said of a picture: nothing, its title, its caption or a part of it, its colours."""
    draw = generator.random()
    if draw < 0.27:
        return ""
    if draw < 0.3:
        return nonsense(generator)
    if caption and draw < 0.7:
        phrases = caption.split(", ")
        kept = [phrase for phrase in phrases if generator.random() > 0.25] or phrases[:1]
        if generator.random() < 0.15:
            generator.shuffle(kept)
        said = ", ".join(kept)
    else:
        said = title.split(". ")[0]
        if generator.random() < 0.3:
            said = said.split(",")[0]
        if generator.random() < 0.25:
            said = color_a_noun(said, picture, generator)
        if generator.random() < 0.35:
            phrases = measured_phrases(picture, generator) or [tones(picture, generator)]
            generator.shuffle(phrases)
            said += "".join(f", {phrase}" for phrase in phrases[: int(generator.integers(1, 4))])
    said = (str(generator.choice(OPENINGS)) if generator.random() < 0.3 else "") + said
    return said + denial(picture, generator) if generator.random() < 0.06 else said


def nonsense(generator: np.random.Generator) -> str:
    """Words that say nothing of any picture: what is unknown is to change nothing."""
    return " ".join(
        "".join(generator.choice(list("aeiounrstlkmdhgbpfvwzj"), generator.integers(2, 10)))
        for _ in range(int(generator.integers(1, 9)))
    )


def denial(picture: NDArray[np.float32], generator: np.random.Generator) -> str:
    """That a colour is absent which is absent: "not red" is to paint nothing red."""
    present = set(np.unique(name_pixels(picture[::2, ::2])).tolist())
    absent = [hue for hue in HUES if hue not in present]
    if not absent:
        return ""
    word = spoken(str(generator.choice(absent)), generator)
    return str(generator.choice([", not {}", ", no {}", ", without {}", ", nothing {}", " but not {}"])).format(word)


def colored_label(label: str, picture: NDArray[np.float32]) -> str:
    """A label such as "a T-shirt" with the one hue of the picture's middle before its noun; else the label."""
    height, width = picture.shape[:2]
    names = name_pixels(picture[height // 4 : -height // 4, width // 4 : -width // 4])
    (name, count), *_ = Counter(names.ravel().tolist()).most_common(1)
    if count < 0.5 * names.size or name in NEUTRALS or not re.match(r"an? ", label):
        return label
    return re.sub(r"^an? ", "an " if name == "orange" else "a ", label).replace(" ", f" {name} ", 1)


def recolor_named(
    caption: str, picture: NDArray[np.float32], generator: np.random.Generator
) -> tuple[str, NDArray[np.float32], NDArray[np.float32]] | None:
    """Repaints the one thing of a picture that bears a colour which its caption names once, and says so.

    The luma is kept, so that only the words tell the picture from the original.

    Returns:
        The new caption, the new picture, and the thing's mask (H, W) in [0, 1]; None where no thing is certain.
    """
    found = list(NAMED.finditer(caption))
    named = Counter(COLORS[word] for match in found for word in re.split("[ -]", match[1].lower()))
    sure = [
        (match, COLORS[words[-1]])
        for match in found
        if len(words := re.split("[ -]", match[1].lower())) == 1
        and COLORS[words[-1]] in LOCALISABLE
        and named[COLORS[words[-1]]] == 1
    ]
    if not sure:
        return None
    match, old = sure[generator.integers(len(sure))]
    mask = (name_pixels(picture) == old).astype(np.uint8)
    joined = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(joined)
    if len(statistics) < 2:
        return None
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    area = statistics[largest, cv2.CC_STAT_AREA]
    if area < 0.7 * statistics[1:, cv2.CC_STAT_AREA].sum() or not 0.004 < area / mask.size < 0.5:
        return None
    soft = cv2.GaussianBlur((labels == largest).astype(np.float32), (3, 3), 0)
    light = luma(picture)
    if generator.random() < 0.12:
        typical = float(np.median(light[labels == largest]))
        new = "black" if typical < 0.25 else "white" if typical > 0.75 else "gray"
    else:
        new = str(generator.choice([hue for hue in HUES if hue != old]))
    inside = labels == largest
    painted = with_luma(paint(picture, new, generator), light)
    vivid, was = (np.linalg.norm((one - light[..., None])[inside], axis=-1).mean() for one in (painted, picture))
    # As vivid as the thing was: or the model would learn that named colours are glaring.
    share = min(1.0, was * generator.uniform(0.8, 1.3) / max(vivid, 1e-6))
    painted = light[..., None] + share * (painted - light[..., None])
    said = caption[: match.start()] + spoken(new, generator) + caption[match.end() :]
    said = re.sub(r"\ba (?=[aeiou])", "an ", re.sub(r"\ban (?=[^aeiou])", "a ", said))
    return said, (picture + (painted - picture) * soft[..., None]).astype(np.float32), soft
