"""The wording of the method's anti-colour prompts, and pictures spoilt so that they fit them."""

import re
from collections.abc import Sequence

import cv2
import numpy as np

from training.colors import COLOR_NAMES, COLOR_OF_WORD, luma, paint, with_luma

GRAY = ("a grayscale photograph", "a grayscale image", "a black and white photo", "a black and white photograph",
        "a gray picture", "a monochrome photo")  # fmt: skip
GRAY_OF = ("a grayscale photograph of {}", "a grayscale image of {}", "a black and white photo of {}")
SCRATCHED = ("a picture with scratches", "a scratchy photo", "a scratchy photograph", "a photo with scratches")
BLEEDING = ("color bleeding", "a photo with color bleeding", "colors bleeding over the edges")
INCONSISTENT = ("regional color inconsistency", "a photo with regional color inconsistency", "patches of wrong color")
BROWNISH = (
    "brownish average colors for objects",
    "a brownish photo",
    "a sepia photograph",
    "a photo in brownish colors",
)
COLORFUL = ("a colorful photograph", "a color photograph", "a colorful photo", "a color photo", "a colorful picture")


def anti_color_prompts() -> list[str]:
    """Every wording, for the vocabulary."""
    return [*GRAY, *GRAY_OF, *SCRATCHED, *BLEEDING, *INCONSISTENT, *BROWNISH, *COLORFUL]


def subject(caption: str) -> str:
    """A caption without its opening and its measured colour phrases."""
    return re.sub(r"^(a|an) (colorful |color )?(photo|photograph|picture)( of )?", "", caption).split(", ")[0]


def contradict(caption: str, generator: np.random.Generator) -> str | None:
    """The caption with its colours wrong: two of them exchanged, or one replaced; None where it names no colour.

    As negatives of their pictures such captions teach which colour belongs to which thing (NegCLIP, arXiv 2210.01936).
    """
    words = [match for match in re.finditer(r"[a-z]+", caption) if match[0] in COLOR_OF_WORD]
    if not words:
        return None
    one = words[generator.integers(len(words))]
    others = [match for match in words if COLOR_OF_WORD[match[0]] != COLOR_OF_WORD[one[0]]]
    others = [match for match in others if not _enumerated(caption, match, one)]
    if others and generator.random() < 0.5:
        other = others[generator.integers(len(others))]
        replacements = {one.span(): other[0], other.span(): one[0]}
    else:
        wrong = [name for name in COLOR_NAMES if name != COLOR_OF_WORD[one[0]]]
        replacements = {one.span(): str(generator.choice(wrong))}
    for (start, end), word in sorted(replacements.items(), reverse=True):
        caption = caption[:start] + word + caption[end:]
    return caption


def _enumerated(caption: str, *words: re.Match) -> bool:
    """Whether only colours are between two words: exchanging those of "brown and beige" changes no meaning."""
    first, second = sorted(words, key=lambda word: word.start())
    return set(re.findall(r"[a-z]+", caption[first.end() : second.start()])) <= {"and", *COLOR_OF_WORD}


def contradictions(captions: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The captions that `contradict` makes of these, but for those that are right for another picture."""
    wrong = (contradict(caption, generator) for caption in captions)
    return [text for text in wrong if text and text not in captions]


def turn_gray(picture: np.ndarray, caption: str, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """The luma alone."""
    gray = np.repeat(luma(picture)[..., None], 3, -1)
    about = subject(caption)
    if about and generator.random() < 0.4:
        return gray, str(generator.choice(GRAY_OF)).format(about)
    return gray, str(generator.choice(GRAY))


def scratch(picture: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Thin light lines and specks, on a colour or a gray picture."""
    spoilt = picture.copy() if generator.random() < 0.6 else np.repeat(luma(picture)[..., None], 3, -1)
    height, width = picture.shape[:2]
    for _ in range(int(generator.integers(4, 14))):
        start = (int(generator.integers(width)), int(generator.integers(height)))
        lean, length = generator.normal(0, 0.25), generator.uniform(0.1, 1.0) * height
        end = (int(start[0] + lean * length), int(start[1] + length))
        cv2.line(spoilt, start, end, (float(generator.uniform(0.75, 1)),) * 3, 1, cv2.LINE_AA)
    specks = generator.random((height, width)) < 0.008
    spoilt[specks] = generator.choice([0.05, 0.95])
    return spoilt, str(generator.choice(SCRATCHED))


def bleed(picture: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Chroma blurred and shifted strongly across edges."""
    light = luma(picture)
    chroma = cv2.GaussianBlur(picture - light[..., None], (0, 0), generator.uniform(3, 6))
    step = generator.integers(4, 12, 2) * generator.choice([-1, 1], 2)
    chroma = np.roll(chroma, step, (0, 1)) * generator.uniform(1.3, 2.0)
    return with_luma(light[..., None] + chroma, light), str(generator.choice(BLEEDING))


def disturb_regions(picture: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Patches whose hues are swapped or turned."""
    light, spoilt = luma(picture), picture.copy()
    height, width = light.shape
    rows, columns = np.mgrid[:height, :width]
    for _ in range(int(generator.integers(2, 6))):
        center, radius = generator.random(2) * (height, width), generator.uniform(0.12, 0.3) * min(height, width)
        patch = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2
        name = str(generator.choice(["red", "green", "blue", "purple", "yellow", "pink", "teal"]))
        painted = with_luma(paint(picture, name, generator), light)
        spoilt[patch] = (0.4 * spoilt + 0.6 * painted)[patch]
    return spoilt, str(generator.choice(INCONSISTENT))


def tint_brown(picture: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Everything in the same dull brown."""
    tint = np.array([0.16, 0.02, -0.14], dtype=np.float32) * generator.uniform(0.5, 1.1)
    light = luma(picture)
    return with_luma(light[..., None] + tint - tint @ [0.299, 0.587, 0.114], light), str(generator.choice(BROWNISH))


def spoil(picture: np.ndarray, caption: str, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Degrades some of the pictures (about a third) and captions them accordingly.

    Args:
        picture: float32 (H, W, 3) in [0, 1].
        caption: the picture's own.
        generator: decides.
    """
    draw = generator.random()
    if draw < 0.15:
        return turn_gray(picture, caption, generator)
    if draw < 0.20:
        return scratch(picture, generator)
    if draw < 0.25:
        return bleed(picture, generator)
    if draw < 0.30:
        return disturb_regions(picture, generator)
    if draw < 0.34:
        return tint_brown(picture, generator)
    if draw < 0.40 and np.abs(picture - luma(picture)[..., None]).mean() > 0.04:
        return picture, str(generator.choice(COLORFUL))
    return picture, caption
