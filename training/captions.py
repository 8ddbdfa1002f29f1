"""Captions of photographs: the archive's title, often with colours measured on the picture."""

import re

import numpy as np

from training.colors import NEUTRALS, color_shares, luma, name_pixels, spoken

OPENINGS = ("", "", "", "a photo of ", "a photograph of ", "a color photograph of ", "a picture of ")
COLORABLE = (
    "house", "barn", "store", "building", "cabin", "church", "car", "truck", "train", "engine", "airplane", "plane",
    "bomber", "boat", "ship", "tank", "field", "wheat", "corn", "mountain", "hill", "dress", "shirt", "hat", "suit",
    "woman", "man", "girl", "boy", "worker", "farmer", "tree", "garden", "street", "road", "railroad", "bridge",
    "shop", "school", "wall", "river", "lake", "trees", "mountains", "fields", "houses", "cars", "trucks", "planes",
)  # fmt: skip
NAMELESS = ("a photograph", "a color photograph", "a colorful photograph", "a picture", "an outdoor scene")


def measured_phrases(picture: np.ndarray, generator: np.random.Generator) -> list[str]:
    """Short phrases that are true of a picture's colours, at most one of each sort.

    Args:
        picture: float32 (H, W, 3) in [0, 1].
        generator: chooses among wordings.
    """
    small = picture[::2, ::2]
    names, light = name_pixels(small), luma(small)
    third = max(1, small.shape[0] // 3)
    phrases = []
    sky = light[:third]
    if sky.mean() > 0.35 and sky.std() < 0.2:
        if np.isin(names[:third], ("blue", "teal")).mean() > 0.55:
            phrases.append(str(generator.choice(["under a blue sky", "blue sky", "a blue sky above"])))
        elif np.isin(names[:third], ("gray", "white")).mean() > 0.7 and sky.mean() > 0.55:
            phrases.append(str(generator.choice(["under a cloudy sky", "under a gray sky", "a white sky"])))
    below = names[third:]
    if (below == "green").mean() > 0.2:
        options = ["green grass", "green fields", "green trees", "green leaves", "green plants"]
        phrases.append(str(generator.choice(options)))
    if np.isin(below, ("brown", "orange")).mean() > 0.5:
        phrases.append(str(generator.choice(["brown earth", "brown ground", "brown wood", "brown tones"])))
    if (below == "yellow").mean() > 0.25:
        phrases.append(str(generator.choice(["yellow grass", "yellow fields", "yellow light"])))
    if (below == "white").mean() > 0.35:
        phrases.append(str(generator.choice(["white snow", "white walls", "white tones"])))
    for name in ("red", "orange", "pink", "purple", "yellow", "teal"):
        if 0.02 < (names == name).mean() < 0.25:
            word = spoken(name, generator)
            noun = str(generator.choice(["a {} object", "something {}", "a {} thing", "some {}"]))
            phrases.append(noun.format(word).replace("a orange", "an orange"))
    return phrases


def tones(picture: np.ndarray, generator: np.random.Generator) -> str:
    """The picture's two main colours in words."""
    shares = {name: share for name, share in color_shares(picture[::2, ::2]).items() if share > 0.12}
    hues = [name for name in shares if name != "black"][:2] or ["black"]
    words = " and ".join(spoken(name, generator) for name in hues)
    return str(generator.choice([f"{words} tones", f"in {words}", f"{words} colors"]))


def color_a_noun(title: str, picture: np.ndarray, generator: np.random.Generator) -> str:
    """Puts the colour of the picture's centre before a noun of the title, if it has both."""
    height, width = picture.shape[:2]
    center = picture[height // 4 : -height // 4, width // 4 : -width // 4]
    name, share = next(iter(color_shares(center).items()))
    found = [word for word in COLORABLE if re.search(rf"\b{word}\b", title.lower())]
    if share < 0.4 or name in NEUTRALS or not found:
        return title
    noun = str(generator.choice(found))
    return re.sub(rf"\b{noun}\b", f"{spoken(name, generator)} {noun}", title, count=1, flags=re.IGNORECASE)
