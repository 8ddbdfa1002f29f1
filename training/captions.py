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
PEOPLE = ("woman", "women", "girl", "man", "men", "boy", "worker", "mother", "farmer", "wife", "children", "boys")
WORN = ("dress", "shirt", "coat", "suit", "jacket", "blouse", "sweater")
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


def caption_photograph(title: str, picture: np.ndarray, generator: np.random.Generator) -> str:
    """Composes one caption of a photograph (crop).

    Args:
        title: the archive's title, cleaned.
        picture: the crop itself, float32 (H, W, 3) in [0, 1]: colours are measured on it.
        generator: chooses what is said.
    """
    draw = generator.random()
    title = title.split(". ")[0]
    head = title.split(",")[0] if generator.random() < 0.5 else title
    if draw < 0.12:
        head = str(generator.choice(NAMELESS))
    elif generator.random() < 0.3:
        head = color_a_noun(head, picture, generator)
    caption = str(generator.choice(OPENINGS)) + head if draw >= 0.12 else head
    if generator.random() < 0.6:
        phrases = measured_phrases(picture, generator)
        if not phrases or generator.random() < 0.25:
            phrases.append(tones(picture, generator))
        generator.shuffle(phrases)
        caption += "".join(f", {phrase}" for phrase in phrases[: int(generator.integers(1, 4))])
    return caption


def caption_recolored(title: str, name: str, generator: np.random.Generator) -> str:
    """Composes the caption of a photograph of which one region was repainted."""
    word, head = spoken(name, generator), title.split(",")[0]
    has_people = any(re.search(rf"\b{noun}\b", title.lower()) for noun in PEOPLE)
    thing = str(generator.choice(WORN if has_people and generator.random() < 0.7 else ("object", "thing")))
    article = "an" if word[0] in "aeiou" else "a"
    joint = "in" if thing in WORN else "with"
    return f"{head} {joint} {article} {word} {thing}"
