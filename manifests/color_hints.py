"""Colour hints: "red barn; pale blue sky" makes the target prompt from a caption that names no colours."""

import re
from dataclasses import dataclass

COLORS = frozenset(
    (
        "red orange yellow green blue purple pink brown black white gray grey beige tan cream ivory gold "
        "golden silver turquoise teal cyan magenta violet lavender maroon crimson scarlet navy olive khaki "
        "ginger blond blonde auburn rust copper bronze emerald amber indigo lilac mauve peach salmon coral"
    ).split()
)
SHADES = frozenset(["light", "dark", "pale", "bright", "deep", "dull", "vivid", "faded", "soft", "warm", "cool"])


@dataclass(frozen=True)
class ColorHint:
    """One hint: "pale blue sky" has color "pale blue" and object "sky"."""

    color: str
    object: str


def parse_color_hints(hints: str) -> list[ColorHint]:
    """Reads hints separated by ';'. The colour is every leading colour or shade word.

    Raises:
        ValueError: a hint has no colour word or no object; the message names it.
    """
    parsed = []
    for hint in filter(None, (part.strip() for part in hints.split(";"))):
        words = hint.split()
        size = next((i for i, word in enumerate(words) if word.lower() not in COLORS | SHADES), len(words))
        if size == len(words) or not any(word.lower() in COLORS for word in words[:size]):
            raise ValueError(f"colour hint {hint!r} is not a colour followed by an object, such as 'red barn'")
        parsed.append(ColorHint(" ".join(words[:size]), " ".join(words[size:])))
    return parsed


def apply_color_hints(caption: str, hints: list[ColorHint]) -> str:
    """The target prompt: each hint's colour before its object in the caption, or the hint added at the end.

    Colours come from hints only; the caption's own words are never read as colours ("White Plains" stays a town).
    """
    target = caption.rstrip(" .")
    for hint in hints:
        match = re.search(rf"\b{re.escape(hint.object)}\b", target, re.IGNORECASE)
        if match:
            target = f"{target[: match.start()]}{hint.color} {target[match.start() :]}"
        else:
            target = f"{target}, {hint.color} {hint.object}" if target else f"{hint.color} {hint.object}"
    return target
