"""Cut-out objects with captions: the Tux Paint stamps (Debian package `tuxpaint-stamps-default`)."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.colors import COLOR_OF_WORD, color_shares

LEFT_OUT = ("symbols", "people/body_parts", "town/flags", "cartoon/tux", "town/houses/cartoon", "seasonal/hanukkah")
FOLDER_NOUNS = {
    "fruit": "fruit", "vegetables": "vegetable", "nuts": "nut", "dessert": "dessert", "dishes": "dish",
    "tools": "tool", "electronics": "machine", "hats": "hat", "clothes": "garment", "houses": "house",
    "roadsigns": "sign", "monuments": "monument", "trees": "tree", "flowers": "flower", "mushrooms": "mushroom",
    "string": "instrument", "planets": "planet", "insects": "insect", "rodents": "animal", "mammals": "animal",
    "cats": "cat", "dogs": "dog", "bears": "bear", "equines": "horse", "bovines": "cow", "birds": "bird",
    "fish": "fish", "aquatic": "sea animal", "deer": "deer", "apes": "ape", "planes": "airplane", "auto": "car",
    "ship": "ship", "locomotive": "train", "cycle": "bicycle", "vehicles": "vehicle", "sports": "ball",
    "construction": "machine", "emergency": "truck", "christmas": "decoration", "halloween": "decoration",
}  # fmt: skip
COLOR_WORDS = set(COLOR_OF_WORD) - {"ginger"}


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """One object.

    Attributes:
        rgba: (H, W, 4) uint8, cropped to the object, long side at most 128.
        caption: the line that describes it in the package.
        nouns: what it may be called, without article, the most exact first.
        natural_color: the colour name that covers most of it, or None when none does.
    """

    rgba: np.ndarray
    caption: str
    nouns: tuple[str, ...]
    natural_color: str | None


def read_noun(text: str) -> str | None:
    """The English caption of a stamp as a short noun phrase, or None when it is not one."""
    phrase = re.split(r"[.,;:(!?—]", text.strip())[0].strip().lower()
    phrase = re.sub(r"^(a|an|the|some|this is an?|one)\s+", "", phrase)
    phrase = phrase.replace("’s", "'s").replace("“", "").replace("”", "")
    words = phrase.split()
    if not 1 <= len(words) <= 5 or not phrase.isascii():
        return None
    bare = [word for word in words if word not in COLOR_WORDS]
    return " ".join(bare) if bare else phrase


def load_stamps(folder: Path, long_side: int = 128) -> list[Stamp]:
    """Loads every usable stamp below a folder, in a fixed order."""
    stamps = []
    for path in sorted(folder.rglob("*.png")):
        where = path.relative_to(folder).as_posix()
        caption = path.with_suffix(".txt")
        if where.startswith(LEFT_OUT) or path.stem.endswith(("_mirror", "_flip")) or not caption.exists():
            continue
        text = caption.read_text(encoding="utf-8", errors="ignore").splitlines()[0].strip()
        noun = read_noun(text)
        rgba = Image.open(path).convert("RGBA")
        box = rgba.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox()
        if noun is None or box is None:
            continue
        rgba = rgba.crop(box)
        if min(rgba.size) < 12:
            continue
        rgba.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        stamps.append(make_stamp(np.asarray(rgba), text, noun, path.parent.relative_to(folder).parts))
    return stamps


def make_stamp(rgba: np.ndarray, caption: str, noun: str, folders: tuple[str, ...]) -> Stamp:
    """Measures a cut-out's natural colour and finds its general nouns."""
    picture, mask = rgba[..., :3].astype(np.float32) / 255, rgba[..., 3] > 128
    shares = color_shares(picture, mask) if mask.any() else {}
    name, share = next(iter(shares.items()), (None, 0.0))
    generic = [FOLDER_NOUNS[part] for part in reversed(folders) if part in FOLDER_NOUNS]
    return Stamp(rgba=rgba, caption=caption, nouns=(noun, *generic[:1]), natural_color=name if share > 0.5 else None)


def is_held_out(text: str, one_in: int) -> bool:
    """Whether a caption or title belongs to the validation split: its sha256 is a multiple of `one_in`."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % one_in == 0


def split_stamps(stamps: list[Stamp]) -> tuple[list[Stamp], list[Stamp]]:
    """Those to train on, and those held out: one caption in five, with every stamp that bears the same noun."""
    nouns = {stamp.nouns[0] for stamp in stamps if is_held_out(stamp.caption, 5)}
    return (
        [stamp for stamp in stamps if stamp.nouns[0] not in nouns],
        [stamp for stamp in stamps if stamp.nouns[0] in nouns],
    )
