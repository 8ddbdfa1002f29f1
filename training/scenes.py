"""Scenes composed on the fly: recoloured stamps on painted or photographed backgrounds, with their captions."""

import cv2
import numpy as np

from training.colors import COLOR_NAMES, HUES, paint, spoken
from training.stamps import Stamp

MEDIA = ("a photo of", "a photo of", "a photograph of", "a picture of", "a color photograph of", "")
GROUNDS = {
    "grass": ("green", ("green grass", "a green lawn", "green grass", "a green field")),
    "table": ("brown", ("a wooden table", "a brown wooden table", "a wooden table", "a brown table")),
    "sand": ("beige", ("beige sand", "sand", "a beige floor")),
    "earth": ("brown", ("brown earth", "brown ground", "a brown field")),
    "sea": ("blue", ("blue water", "the blue sea", "blue water")),
    "snow": ("white", ("white snow", "snow")),
    "road": ("gray", ("a gray road", "gray stone", "a gray floor")),
}


def with_article(phrase: str) -> str:
    """Puts a or an before a phrase."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def smooth_noise(shape: tuple[int, int], cells: int, generator: np.random.Generator) -> np.ndarray:
    """(H, W) clouds in [0, 1] with about `cells` blobs along a side."""
    coarse = generator.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def shaded(shape: tuple[int, int], generator: np.random.Generator, contrast: float = 0.5) -> np.ndarray:
    """A gray picture (H, W, 3): a shaded, cloudy, slightly grainy surface."""
    ramp = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] * generator.uniform(-1, 1)
    ramp = ramp + np.linspace(-1, 1, shape[1], dtype=np.float32)[None] * generator.uniform(-1, 1)
    clouds = smooth_noise(shape, int(generator.integers(2, 9)), generator) - 0.5
    grain = generator.standard_normal(shape, dtype=np.float32) * generator.uniform(0, 0.025)
    base = generator.uniform(0.25, 0.85)
    light = base + contrast * (0.2 * ramp + generator.uniform(0, 0.6) * clouds) + grain
    return np.repeat(light.clip(0.02, 0.98)[..., None], 3, -1).astype(np.float32)


def striped(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """A gray picture (H, W, 3) of planks or wood grain."""
    lines = smooth_noise((shape[0], 1), max(2, shape[0] // int(generator.integers(2, 8))), generator)
    light = 0.5 + generator.uniform(0.1, 0.35) * (lines - 0.5) + shaded(shape, generator, 0.3)[..., 0] - 0.5
    return np.repeat(light.clip(0.05, 0.95)[..., None], 3, -1)


def compose_background(
    shape: tuple[int, int], photograph: np.ndarray | None, generator: np.random.Generator
) -> tuple[np.ndarray, str]:
    """A background (H, W, 3) and the words that follow the object's name (may be empty)."""
    kind = generator.random()
    if kind < 0.2 and photograph is not None:
        return photograph, ""
    if kind < 0.6:
        name = str(generator.choice(COLOR_NAMES))
        where = generator.choice(
            ["on a {} background", "against a {} wall", "on a {} surface", "in front of a {} wall"]
        )
        vividness = generator.uniform(0.5, 1.0)
        return paint(shaded(shape, generator), name, generator, vividness), " " + str(where).format(
            spoken(name, generator)
        )
    ground_name = str(generator.choice(list(GROUNDS)))
    color, phrases = GROUNDS[ground_name]
    texture = striped if ground_name == "table" else shaded
    background = paint(texture(shape, generator), color, generator, generator.uniform(0.4, 0.9))
    words = f" on {generator.choice(phrases)}"
    if ground_name != "table" or generator.random() < 0.4:
        sky = "blue" if generator.random() < 0.65 else str(generator.choice(["gray", "white", "orange", "pink"]))
        horizon = int(shape[0] * generator.uniform(0.2, 0.7))
        background[:horizon] = paint(
            shaded((horizon, shape[1]), generator, 0.35), sky, generator, generator.uniform(0.35, 0.8)
        )
        above = "before a {} wall" if ground_name == "table" else "under a {} sky"
        words += " " + above.format(sky).replace("a orange", "an orange")
    return background, words


def color_stamp(stamp: Stamp, share: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Recolours a stamp, or leaves it in its natural colours.

    Args:
        stamp: the object.
        share: how often it is recoloured.
        generator: source of every choice.

    Returns:
        its picture (h, w, 3), its alpha (h, w), and its noun phrase with article.
    """
    picture = stamp.rgba[..., :3].astype(np.float32) / 255
    alpha = stamp.rgba[..., 3].astype(np.float32) / 255
    noun = stamp.nouns[0] if generator.random() < 0.7 else stamp.nouns[-1]
    if generator.random() < share:
        name = str(generator.choice(HUES if generator.random() < 0.75 else COLOR_NAMES))
        painted = paint(picture, name, generator)
        return painted, alpha, with_article(f"{spoken(name, generator)} {noun}")
    if stamp.natural_color is not None and generator.random() < 0.65:
        noun = f"{spoken(stamp.natural_color, generator)} {noun}"
    return picture, alpha, with_article(noun)


def paste(canvas: np.ndarray, picture: np.ndarray, alpha: np.ndarray, box: tuple[float, float, float, float],
          generator: np.random.Generator) -> None:  # fmt: skip
    """Pastes a cut-out at random size, place and flip into a box (top, left, bottom, right as shares), in place."""
    height, width = canvas.shape[:2]
    room_h, room_w = (box[2] - box[0]) * height, (box[3] - box[1]) * width
    scale = min(room_h / alpha.shape[0], room_w / alpha.shape[1]) * generator.uniform(0.55, 1.0)
    size = (max(4, int(alpha.shape[1] * scale)), max(4, int(alpha.shape[0] * scale)))
    picture, alpha = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (picture, alpha))
    if generator.random() < 0.5:
        picture, alpha = picture[:, ::-1], alpha[:, ::-1]
    top = int(box[0] * height + generator.random() * max(0, room_h - size[1]))
    left = int(box[1] * width + generator.random() * max(0, room_w - size[0]))
    area = canvas[top : top + size[1], left : left + size[0]]
    alpha = alpha[: area.shape[0], : area.shape[1], None]
    area[:] = area * (1 - alpha) + picture[: area.shape[0], : area.shape[1]] * alpha


def compose_scene(
    stamps: list[Stamp], shape: tuple[int, int], photograph: np.ndarray | None, generator: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Composes one scene with one object (70 %) or two side by side.

    Args:
        stamps: the objects to choose from.
        shape: (H, W) of the scene.
        photograph: (H, W, 3) in [0, 1], used as the background of some scenes; None forbids it.
        generator: source of every choice.

    Returns:
        the scene, float32 (H, W, 3) in [0, 1], and its caption.
    """
    background, words = compose_background(shape, photograph, generator)
    canvas = np.ascontiguousarray(background, dtype=np.float32).copy()
    chosen = [stamps[i] for i in generator.integers(0, len(stamps), 1 if generator.random() < 0.7 else 2)]
    boxes = [(0, 0, 1, 1)] if len(chosen) == 1 else [(0, 0, 1, 0.52), (0, 0.48, 1, 1)]
    phrases = []
    for stamp, box in zip(chosen, boxes, strict=True):
        picture, alpha, phrase = color_stamp(stamp, 0.6, generator)
        paste(canvas, picture, alpha, box, generator)
        phrases.append(phrase)
    joint = str(generator.choice([" and ", " next to ", " beside "]))
    return canvas.clip(0, 1), f"{generator.choice(MEDIA)} {joint.join(phrases)}{words}".strip()
